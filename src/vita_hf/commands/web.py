"""A page in the browser for one's own videos: `python -m vita_hf.commands.web --model DIR`.

Everything stays on this machine unless `--host` says otherwise.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from transformers import pipeline

from ..pipeline_vita import VideoInstanceSegmentationPipeline
from ..tracks.instances import VideoInstances

_COLUMNS = ("track", "label", "score", "first frame", "last frame", "frames seen")


class Segmented(NamedTuple):
    """What the page shows of a video: files, and the tracks as rows of `_COLUMNS`."""

    overlay: Path
    tracks: list[list]
    contact_sheet: Path
    json: Path


def segment(
    segmenter: Callable[..., VideoInstances], video: str | Path, folder: Path, threshold: float = 0.3, stride: int = 1
) -> Segmented:
    """
    Segment a video and write what there is to see.

    Args:
        segmenter: The pipeline.
        video: A video file.
        folder: Where to make a folder for the results.
        threshold: Tracks with a lower score are dropped.
        stride: Every how many frames one is used.
    """
    result = segmenter(str(video), threshold=threshold, stride=stride, progress=True)
    name = Path(video).stem
    output = Path(tempfile.mkdtemp(dir=folder))
    overlay = result.render(video, output / f"{name}-overlay.mp4", progress=True)
    sheet = output / f"{name}-contact-sheet.png"
    result.plot(video, sheet)
    result.to_json(output / f"{name}.json")
    tracks = [
        [round(value, 3) if isinstance(value, float) else value for value in r.values()] for r in result.summary()
    ]
    return Segmented(overlay, tracks, sheet, output / f"{name}.json")


def build_page(segmenter: Callable[..., VideoInstances], folder: Path):
    """
    Build the page, a `gradio.Blocks` to `launch`.

    Args:
        segmenter: The pipeline.
        folder: Where the results are written.

    Raises:
        ImportError: gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the app needs the gradio package: pip install vita-hf[app]") from error

    # gradio looks for a progress bar among the defaults
    def run(video, threshold, stride, progress=gradio.Progress(track_tqdm=True)):  # noqa: B008
        if video is None:
            raise gradio.Error("Choose a video first.")
        try:
            overlay, tracks, sheet, json = segment(segmenter, video, folder, threshold, int(stride))
        except (OSError, ValueError) as error:
            raise gradio.Error(str(error)) from error
        return str(overlay), tracks, str(sheet), [str(json), str(overlay), str(sheet)]

    # Uploads and copies of results older than a day are removed.
    with gradio.Blocks(title="Video instance segmentation", delete_cache=(3600, 86400)) as page:
        gradio.Markdown("# Video instance segmentation\nEvery object, segmented and tracked through a video by VITA.")
        with gradio.Row():
            with gradio.Column():
                video = gradio.Video(label="Video")
                threshold = gradio.Slider(0, 1, 0.3, step=0.05, label="Least score of a track")
                stride = gradio.Slider(1, 30, 1, step=1, label="Use every so many frames")
                button = gradio.Button("Segment", variant="primary")
            overlay = gradio.Video(label="Tracks")
        tracks = gradio.Dataframe(headers=list(_COLUMNS), label="Tracks", interactive=False)
        sheet = gradio.Image(label="Contact sheet", interactive=False)
        files = gradio.Files(label="Download", interactive=False)
        button.click(run, [video, threshold, stride], [overlay, tracks, sheet, files], api_name="segment")
    return page


def main(argv: list[str] | None = None) -> None:
    """Load the model and serve the page until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m vita_hf.commands.web", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory or Hub id of a VITA model")
    parser.add_argument("--device", help="for example cuda:0 or cpu; by default a GPU if there is one")
    parser.add_argument("--dtype", help="for example bfloat16; by default as the model was saved")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, help="by default the first free one from 7860")
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory(prefix="vita-hf-app-") as folder:
        options = {name: value for name in ("device", "dtype") if (value := getattr(args, name)) is not None}
        try:
            segmenter: VideoInstanceSegmentationPipeline = pipeline(
                "video-instance-segmentation", model=args.model, **options
            )
            page = build_page(segmenter, Path(folder))
        except (ImportError, OSError, ValueError) as error:
            parser.exit(1, f"error: {error}\n")
        page.launch(server_name=args.host, server_port=args.port)


if __name__ == "__main__":
    main()

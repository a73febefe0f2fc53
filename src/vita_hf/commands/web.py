"""`vita-hf web`: segment videos on a page in the browser."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from transformers import pipeline

from ..inference.options import SegmentationOptions
from ..tracks.instances import VideoInstances

_EXAMPLES = """examples:
  vita-hf web --model vita-r50-ytvis2019
"""

_COLUMNS = ("track", "label", "score", "first frame", "last frame", "frames seen")


class SegmentedVideo(NamedTuple):
    """What the page shows of a video: three files, and a row of `_COLUMNS` for each track."""

    overlay: Path
    tracks: list[list[Any]]
    contact_sheet: Path
    json: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serve a page that segments videos. Only this machine can reach it, unless --host is given."
    parser.epilog = _EXAMPLES
    parser.add_argument("--model", required=True, help="directory or Hub id")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: as the model was saved)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="(default: the first free one from 7860)")


def run(args: argparse.Namespace) -> None:
    """Load the model and serve the page until interrupted."""
    options = {name: value for name in ("device", "dtype") if (value := getattr(args, name)) is not None}
    segmenter = pipeline("video-instance-segmentation", model=args.model, **options)
    with tempfile.TemporaryDirectory(prefix="vita-hf-web-") as folder:
        build_page(segmenter, Path(folder)).launch(server_name=args.host, server_port=args.port)


def build_page(segmenter: Callable[..., VideoInstances], folder: Path) -> Any:
    """
    Build the page, a `gradio.Blocks`.

    Args:
        segmenter: The pipeline.
        folder: Where to write results.

    Raises:
        ImportError: if gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError("vita-hf web needs the gradio package: pip install vita-hf[app]") from error

    # gradio looks for a progress bar among the defaults.
    def submit(video, threshold, stride, progress=gradio.Progress(track_tqdm=True)):  # noqa: B008
        if video is None:
            raise gradio.Error("Choose a video first.")
        try:
            segmented = segment(segmenter, video, folder, threshold, int(stride))
        except (OSError, ValueError) as error:
            raise gradio.Error(str(error)) from error
        overlay, sheet, json = map(str, (segmented.overlay, segmented.contact_sheet, segmented.json))
        return overlay, segmented.tracks, sheet, [json, overlay, sheet]

    # Every hour, gradio deletes uploads and copies of results that are a day old.
    with gradio.Blocks(title="Video instance segmentation", delete_cache=(3600, 86400)) as page:
        gradio.Markdown("# Video instance segmentation\nVITA segments and tracks every object through a video.")
        with gradio.Row():
            with gradio.Column():
                video = gradio.Video(label="Video")
                threshold = gradio.Slider(
                    0, 1, SegmentationOptions.threshold, step=0.05, label="Lowest score of a track"
                )
                stride = gradio.Slider(1, 30, 1, step=1, label="Use every N-th frame")
                button = gradio.Button("Segment", variant="primary")
            overlay = gradio.Video(label="Tracks")
        tracks = gradio.Dataframe(headers=list(_COLUMNS), label="Tracks", interactive=False)
        sheet = gradio.Image(label="Contact sheet", interactive=False)
        files = gradio.Files(label="Download", interactive=False)
        button.click(submit, [video, threshold, stride], [overlay, tracks, sheet, files], api_name="segment")
    return page


def segment(
    segmenter: Callable[..., VideoInstances], video: str | Path, folder: Path, threshold: float, stride: int
) -> SegmentedVideo:
    """
    Segment a video and write overlay, contact sheet and json.

    Args:
        segmenter: The pipeline.
        video: A video file.
        folder: Where to make a new folder for the three files.
        threshold: Lowest score of a track.
        stride: Use every `stride`-th frame.
    """
    tracks = segmenter(str(video), threshold=threshold, stride=stride, progress=True)
    stem = Path(tempfile.mkdtemp(dir=folder), Path(video).stem)
    overlay, sheet, json = (stem.with_name(stem.name + end) for end in ("-overlay.mp4", "-contact-sheet.png", ".json"))
    tracks.render(video, overlay, progress=True)
    tracks.plot(video, sheet)
    tracks.to_json(json)
    rows = [
        [round(value, 3) if isinstance(value, float) else value for value in row.values()] for row in tracks.summary()
    ]
    return SegmentedVideo(overlay, rows, sheet, json)

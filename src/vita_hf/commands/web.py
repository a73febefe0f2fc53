"""`vita-hf web`: segment videos on a page in the browser."""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ..image_processing_vita import VitaVideoProcessor
from ..inference.loading import load_model
from ..inference.offline import segment_video
from ..inference.options import SegmentationOptions
from ..modeling_vita import VitaForVideoInstanceSegmentation
from .predict import default_device

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
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="(default: the first free one from 7860)")


def run(args: argparse.Namespace) -> None:
    """Load the model and serve the page until interrupted."""
    model, processor = load_model(args.model, dtype=args.dtype)
    model.to(args.device or default_device())
    with tempfile.TemporaryDirectory(prefix="vita-hf-web-") as folder:
        build_page(model, processor, Path(folder)).launch(server_name=args.host, server_port=args.port)


def build_page(model: VitaForVideoInstanceSegmentation, processor: VitaVideoProcessor, folder: Path) -> Any:
    """
    Build the page, a `gradio.Blocks`. It writes results to a folder.

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
            options = SegmentationOptions(threshold=threshold, stride=int(stride), progress=True)
            segmented = segment(model, processor, video, folder, options)
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
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    video: str | Path,
    folder: Path,
    options: SegmentationOptions,
) -> SegmentedVideo:
    """Segment a video, and write overlay, contact sheet and json into a new subfolder of a folder."""
    tracks = segment_video(model, processor, video, options)
    stem = Path(tempfile.mkdtemp(dir=folder), Path(video).stem)
    overlay, sheet, json = (stem.with_name(stem.name + end) for end in ("-overlay.mp4", "-contact-sheet.png", ".json"))
    tracks.render(video, overlay, contact_sheet=sheet, progress=True)
    tracks.to_json(json)
    rows = [
        [round(value, 3) if isinstance(value, float) else value for value in row.values()] for row in tracks.summary()
    ]
    return SegmentedVideo(overlay, rows, sheet, json)

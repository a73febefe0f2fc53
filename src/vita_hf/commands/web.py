"""`vita-hf web`: segment videos on a web page."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from ..inference.loading import load_model
from ..inference.options import SegmentationOptions
from ..pipeline_vita import VideoInstanceSegmentationPipeline

_COLUMNS = ("track", "label", "score", "first frame", "last frame", "frames seen")


def run(args: argparse.Namespace) -> None:
    """Load the model and serve the page until interrupted."""
    model, processor = load_model(args.model, dtype=args.dtype)
    segmenter = VideoInstanceSegmentationPipeline(model, processor, device=args.device)
    with tempfile.TemporaryDirectory(prefix="vita-hf-web-") as folder:
        build_page(segmenter, Path(folder)).launch(server_name=args.host, server_port=args.port)


def build_page(segmenter: VideoInstanceSegmentationPipeline, folder: Path) -> Any:
    """Build the page, a `gradio.Blocks`. It writes results to a folder."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError("vita-hf web needs the gradio package: pip install gradio") from error

    # gradio looks for a progress bar among the defaults.
    def submit(video, threshold, stride, progress=gradio.Progress(track_tqdm=True)):  # noqa: B008
        if video is None:
            raise gradio.Error("Choose a video first.")
        try:
            rows, *files = segment(segmenter, video, folder, threshold=threshold, stride=int(stride))
        except (OSError, ValueError) as error:
            raise gradio.Error(str(error)) from error
        return files[0], rows, files[1], files

    # Every hour, gradio deletes uploads and copies of results that are a day old.
    with gradio.Blocks(title="Video instance segmentation", delete_cache=(3600, 86400)) as page:
        gradio.Markdown("# Video instance segmentation\nVITA segments and tracks every object through a video.")
        with gradio.Row():
            with gradio.Column():
                video = gradio.Video(label="Video")
                threshold = gradio.Slider(0, 1, SegmentationOptions.threshold, step=0.05, label="Minimum score")
                stride = gradio.Slider(1, 30, 1, step=1, label="Use every N-th frame")
                button = gradio.Button("Segment", variant="primary")
            overlay = gradio.Video(label="Tracks")
        tracks = gradio.Dataframe(headers=list(_COLUMNS), label="Tracks", interactive=False)
        sheet = gradio.Image(label="Contact sheet", interactive=False)
        files = gradio.Files(label="Download", interactive=False)
        button.click(submit, [video, threshold, stride], [overlay, tracks, sheet, files], api_name="segment")
    return page


def segment(
    segmenter: VideoInstanceSegmentationPipeline, video: str | Path, folder: Path, **options: Any
) -> tuple[list[list[Any]], str, str, str]:
    """Segment a video into a new subfolder; return rows of `_COLUMNS`, and the paths of overlay, sheet and json."""
    tracks: Any = segmenter(video, progress=True, **options)
    stem = str(Path(tempfile.mkdtemp(dir=folder), Path(video).stem))
    overlay, sheet, json = stem + "-overlay.mp4", stem + "-contact-sheet.png", stem + ".json"
    tracks.render(video, overlay, contact_sheet=sheet, progress=True)
    tracks.to_json(json)
    rows = [[round(v, 3) if isinstance(v, float) else v for v in track.values()] for track in tracks.summary()]
    return rows, overlay, sheet, json

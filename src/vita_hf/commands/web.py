"""`vita-hf web`: segment videos on a web page."""

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..data.synthetic import SyntheticVideo
from ..inference.loading import SHIPPED_MODEL, check_device, load_model
from ..inference.options import LOWEST_SCORE, SegmentationOptions
from ..pipeline_vita import VideoInstanceSegmentationPipeline
from ..video.reader import VIDEO_SUFFIXES
from ..video.writer import video_writer
from .errors import EXPECTED_ERRORS, describe_error
from .web_session import Session, View, find_playback_problem


def run(args: argparse.Namespace) -> None:
    """Load the model and serve the page until interrupted."""
    if args.model is None:
        print("No --model given: using the shipped tiny model, which knows only the shapes of its synthetic videos.")
    if args.device is not None:
        check_device(args.device)
    model, processor = load_model(SHIPPED_MODEL if args.model is None else args.model, dtype=args.dtype)
    segmenter = VideoInstanceSegmentationPipeline(model, processor, device=args.device)
    with tempfile.TemporaryDirectory(prefix="vita-hf-web-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # for uploads; gradio makes no copies of results that lie in it
        page = build_page(segmenter, Path(folder))
        page.launch(server_name=args.host, server_port=args.port, max_file_size=f"{args.max_upload}mb")


def build_page(segmenter: VideoInstanceSegmentationPipeline, folder: Path) -> Any:
    """Build the page, a `gradio.Blocks`. All that it writes is in a folder."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError("vita-hf web needs the gradio package: pip install gradio") from error
    events = _make_events(gradio, segmenter, folder)
    # Every ten minutes, gradio deletes uploads that are an hour old; sessions keep what they need.
    with gradio.Blocks(title="Video instance segmentation", delete_cache=(600, 3600), analytics_enabled=False) as page:
        gradio.Markdown("# Video instance segmentation\nVITA segments and tracks every object through a video.")
        with gradio.Row():
            with gradio.Column():
                # Not a `Video`: that calls what the browser cannot play an error.
                video = gradio.File(label="Video", file_types=sorted(VIDEO_SUFFIXES), height=140)
                preview, hint = gradio.Video(visible=False, interactive=False), gradio.Markdown()
                gradio.Examples([_write_example(folder)], video, label="Example: shapes that the shipped model knows")
                stride = gradio.Slider(1, 30, 1, step=1, label="Use every N-th frame")
                with gradio.Row():
                    button = gradio.Button("Segment", variant="primary")
                    stop_button = gradio.Button("Stop")
            with gradio.Column():
                # Neither labels nor buttons: they would hide labels of tracks.
                overlay = gradio.Video(interactive=False, show_label=False, buttons=[], elem_id="overlay")
                minimum = SegmentationOptions.threshold
                threshold = gradio.Slider(LOWEST_SCORE, 1, minimum, step=0.05, label="Minimum score")
                labels = gradio.Dropdown([], multiselect=True, label="Classes (all, if none is chosen)")
                table = gradio.HTML(elem_id="tracks")
        sheet = gradio.Image(interactive=False, show_label=False, buttons=[])
        files = gradio.Files(label="Download", interactive=False)

        outputs, shown = [overlay, sheet, files], {"show_progress_on": overlay}
        video.change(events.show_upload, video, [preview, hint], show_progress="hidden")
        button.click(events.segment, [video, threshold, stride], [*outputs, table, labels], api_name="segment", **shown)
        stop_button.click(events.stop, queue=False)
        filters = {"triggers": [threshold.change, labels.input], "inputs": [threshold, labels]}
        gradio.on(**filters, fn=events.list_tracks, outputs=table, show_progress="hidden", trigger_mode="always_last")
        gradio.on(**filters, fn=events.draw, outputs=outputs, **shown, trigger_mode="always_last")
        page.unload(events.close)
    return page


def _make_events(gradio: Any, segmenter: VideoInstanceSegmentationPipeline, folder: Path) -> SimpleNamespace:
    """
    Make the functions that answer what visitors do.

    gradio passes the request because of its annotation, and a progress bar because it is the default.
    """
    sessions: defaultdict[str, Session] = defaultdict(lambda: Session(folder))  # by tab

    def answer(function: Callable[..., View], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except InterruptedError:
            gradio.Info("Stopped.")
            return gradio.skip()
        except EXPECTED_ERRORS as error:
            raise gradio.Error(without_paths(describe_error(error), folder), print_exception=False) from error

    def segment(video, threshold, stride, request: gradio.Request, progress=gradio.Progress(track_tqdm=True)):  # noqa: B008
        if video is None:
            raise gradio.Error("Choose a video first.", print_exception=False)
        session = sessions[request.session_hash]
        view = answer(session.segment, segmenter, video, threshold, stride=int(stride))
        if not isinstance(view, View):
            return view
        return (*view, session.list_tracks(threshold), gradio.Dropdown(session.labels, value=[]))

    def draw(threshold, labels, request: gradio.Request, progress=gradio.Progress(track_tqdm=True)):  # noqa: B008
        session = sessions[request.session_hash]
        return answer(session.draw, threshold, labels) if session.labels else gradio.skip()

    def show_upload(video):
        problem = find_playback_problem(video) if video else None
        shown = video if problem is None else None
        return gradio.Video(shown, visible=shown is not None), problem

    def list_tracks(threshold, labels, request: gradio.Request):
        return sessions[request.session_hash].list_tracks(threshold, labels)

    def stop(request: gradio.Request):
        sessions[request.session_hash].stop()

    def close(request: gradio.Request):
        if request.session_hash in sessions:
            sessions.pop(request.session_hash).close()

    return SimpleNamespace(
        segment=segment, draw=draw, list_tracks=list_tracks, show_upload=show_upload, stop=stop, close=close
    )


def without_paths(message: str, folder: Path) -> str:
    """Replace the paths of files in a folder by their names."""
    names = {str(file): file.name for file in folder.rglob("*") if file.is_file()}
    for path in sorted(names, key=len, reverse=True):
        message = message.replace(path, names[path])
    return message


def _write_example(folder: Path) -> str:
    path = folder / "shapes.mp4"
    with video_writer(path, fps=10) as write:
        for time, (image, _) in enumerate(SyntheticVideo(2, 0, length=40)):
            write(image, time)
    return str(path)

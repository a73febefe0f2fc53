"""What an open tab of the web page has: a video, its tracks, and pictures of them. Knows nothing of gradio."""

import os
import shutil
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..inference.options import LOWEST_SCORE
from ..pipeline_vita import VideoInstanceSegmentationPipeline
from ..tracks.instances import VideoInstances
from ..tracks.table import html_table
from ..video.frame_source import Choice, Frame
from ..video.reader import VideoReader, import_decoding

_READABLE_HEIGHT = 360  # smaller videos are enlarged, so that labels can be read
_BROWSER_CODECS = frozenset({"av1", "h264", "vp8", "vp9"})


class View(NamedTuple):
    """Paths of the files with the chosen tracks."""

    overlay: str
    contact_sheet: str
    files: list[str]


class Session:
    """
    One visitor's video and its tracks. A video is segmented once; other scores and classes are chosen from its tracks.

    Args:
        folder: Where the session makes a folder of its own, which `close` removes.
    """

    def __init__(self, folder: Path):
        self.folder = Path(tempfile.mkdtemp(dir=folder, prefix="session-"))
        self._video: _Upload | None = None
        self._tracks: VideoInstances | None = None
        self._stopped = threading.Event()
        self._running = threading.Lock()
        self._closed = False

    @property
    def labels(self) -> list[str]:
        """Names of the classes that were found."""
        return sorted(set(self._tracks.label_names)) if self._tracks is not None else []

    def segment(
        self, segmenter: VideoInstanceSegmentationPipeline, upload: str, threshold: float, **options: Any
    ) -> View:
        """
        Segment an uploaded file and draw its tracks.

        Raises:
            InterruptedError: if the session was stopped or closed meanwhile.
            ValueError: if the file cannot be decoded as a video.
        """
        with self._run():
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            self._video = self._tracks = None
            file = self.folder / Path(upload).name
            os.link(upload, file)  # gradio deletes uploads after a while
            video = _Upload(file, self._stopped)
            tracks: Any = segmenter(video, threshold=LOWEST_SCORE, progress=True, **options)
            self._video, self._tracks = video, tracks
            return self._draw(threshold, ())

    def draw(self, threshold: float, labels: Sequence[str] = ()) -> View:
        """
        Draw the tracks with at least a score and, if any are given, one of the labels.

        Raises:
            InterruptedError: if the session was stopped or closed meanwhile.
            ValueError: if no video was segmented yet.
        """
        with self._run():
            return self._draw(threshold, labels)

    def list_tracks(self, threshold: float, labels: Sequence[str] = ()) -> str:
        """List the same tracks as an HTML table."""
        tracks = self._tracks
        return "" if tracks is None else html_table(_choose(tracks, threshold, labels))

    def stop(self) -> None:
        """Let what is running end with an InterruptedError."""
        self._stopped.set()

    def close(self) -> None:
        """Stop what is running, wait for its end, and remove all files."""
        self._closed = True
        self.stop()
        with self._running:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _run(self) -> Generator[None]:
        with self._running:
            if self._closed:
                raise InterruptedError("the session has ended")
            self._stopped.clear()
            yield

    def _draw(self, threshold: float, labels: Sequence[str]) -> View:
        if self._video is None or self._tracks is None:
            raise ValueError("segment a video first")
        tracks = _choose(self._tracks, threshold, labels)
        # A new folder each time: a browser would show the old file again.
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        overlay, sheet, results = (folder / name for name in ("overlay.mp4", "contact_sheet.png", "results.json"))
        scale = max(1, _READABLE_HEIGHT // min(tracks.size))
        tracks.render(self._video, overlay, scale=scale, contact_sheet=sheet, progress=True)
        tracks.to_json(results)
        for old in self.folder.iterdir():
            if old.is_dir() and old != folder:
                shutil.rmtree(old)
        return View(str(overlay), str(sheet), [str(overlay), str(sheet), str(results)])


def _choose(tracks: VideoInstances, threshold: float, labels: Sequence[str]) -> VideoInstances:
    return tracks.filter(min_score=threshold, labels=list(labels) or None)


class _Upload(VideoReader):
    """A video file whose reading ends when it is no longer wanted."""

    def __init__(self, path: Path, stopped: threading.Event):
        self._stopped = stopped
        super().__init__(path)

    def read(self, chosen: Choice | None = None) -> Iterator[Frame]:
        for frame in super().read(chosen):
            if self._stopped.is_set():
                raise InterruptedError("stopped")
            yield frame


def find_playback_problem(upload: str) -> str | None:
    """Say why a browser may not play an uploaded video; None if it can."""
    decoding = import_decoding()
    try:
        with decoding.open_container(upload) as container:
            codec = decoding.choose_stream(container).codec_context.codec.canonical_name
    except (decoding.FFmpegError, AttributeError):  # no stream, or no decoder
        return "This file is damaged, or no video."
    if codec in _BROWSER_CODECS:
        return None
    return f"Browsers may not play this video ({codec.upper()}). It can be segmented all the same."


__all__ = ["Session", "View", "find_playback_problem"]

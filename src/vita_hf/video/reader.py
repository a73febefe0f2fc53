"""Video files, decoded by PyAV or torchcodec."""

import logging
from collections.abc import Collection, Container, Generator, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from .download import MAX_BYTES, download, is_url, shown
from .frame_source import FrameSource

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"})


class VideoReader(FrameSource):
    """
    A video file that can be read from start to end as often as needed, one frame in memory at a time.

    Args:
        path: The video file, or an URL, which is downloaded into a temporary file first.
        decoder: "pyav" (the `av` package, which brings FFmpeg along) or "torchcodec" (needs an installed FFmpeg).
        name: The video's name in messages; by default its path.
        max_bytes: The largest file to download.

    Attributes:
        file: The downloaded file of an URL, else None.
        fps: Average frame rate stated by the file, or None.
        length: Number of frames stated by the file or derived from its duration, or None. It may be wrong.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the address cannot be reached.
        ImportError: if the decoder is not installed or cannot be loaded.
        ValueError: if the file cannot be decoded (also while reading it) or the decoder is unknown.
    """

    def __init__(self, path: str | Path, decoder: str = "pyav", name: str | None = None, max_bytes: int = MAX_BYTES):
        if decoder not in ("pyav", "torchcodec"):
            raise ValueError(f"decoder must be 'pyav' or 'torchcodec', got {decoder!r}")
        self.path: str | Path = path if is_url(path) else Path(path)
        self.name = name or shown(path)
        self.decoder = decoder
        self.file: IO[bytes] | None = None
        if isinstance(self.path, Path) and not self.path.is_file():
            raise FileNotFoundError(f"video file not found: {path}")
        if decoder == "pyav":
            self._av = import_av()
        if is_url(path):
            self.file = download(str(path), max_bytes)
        self._read_metadata()

    def _read_metadata(self) -> None:
        duration = None
        if self.decoder == "pyav":
            with self._open_pyav() as container:
                stream = container.streams.video[0]
                rate, self._stated_length = stream.average_rate, stream.frames or None
                duration = container.duration and container.duration / self._av.time_base
        else:
            metadata = self._open_torchcodec().metadata
            rate, self._stated_length = metadata.average_fps, getattr(metadata, "num_frames", None)
        self.fps = float(rate) if rate else None
        self.length = self._stated_length or (round(duration * self.fps) if duration and self.fps else None)

    def count_frames(self) -> int:
        """Count the frames by decoding them: what a file states is not reliable."""
        if self.decoder == "torchcodec":
            return len(self._open_torchcodec())
        return sum(1 for _ in self._decode_pyav())

    def frames(self, indices: Container[int] | None = None) -> Iterator[np.ndarray]:
        """Yield the upright frames with these indices (by default all) in order: uint8 RGB arrays (H, W, 3)."""
        chosen = set(indices) if isinstance(indices, Collection) else indices
        if self.decoder == "torchcodec":
            yield from self._decode_torchcodec(chosen)
            return
        for index, frame in enumerate(self._decode_pyav()):
            if chosen is None or index in chosen:
                # Phones store portrait videos as landscape frames with a rotation. torchcodec applies it by itself.
                yield np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))

    def _input(self) -> str | IO[bytes]:
        if self.file is None:
            return str(self.path)
        self.file.seek(0)
        return self.file

    def _open_pyav(self) -> Any:
        try:
            container = self._av.open(self._input())
        except self._av.error.FFmpegError as error:
            raise self._not_decodable(error) from error
        if not container.streams.video:
            container.close()
            raise self._not_decodable("it has no video stream")
        return container

    def _decode_pyav(self) -> Generator[Any]:
        count = 0
        with self._open_pyav() as container:
            container.streams.video[0].thread_type = "SLICE"  # threads that decode whole frames lose errors
            try:
                for frame in container.decode(video=0):
                    count += 1
                    yield frame
            except self._av.error.FFmpegError as error:
                raise self._not_decodable(error) from error
        # Files may count a few frames that are never shown; one that was cut off lacks more.
        if self._stated_length and count < 0.95 * self._stated_length:
            stated = self._stated_length
            logger.warning("%s states %d frames but ends after %d: it may be cut off", shown(self.path), stated, count)

    def _decode_torchcodec(self, chosen: Container[int] | None) -> Generator[np.ndarray]:
        video = self._open_torchcodec()
        for index in range(len(video)):
            if chosen is None or index in chosen:
                try:
                    frame = video[index]
                except RuntimeError as error:
                    raise self._not_decodable(error) from error
                yield frame.numpy()

    def _open_torchcodec(self) -> Any:
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, OSError, RuntimeError) as error:  # the last two: FFmpeg's libraries are missing
            raise ImportError(
                "decoder='torchcodec' needs the torchcodec package and FFmpeg's libraries, which cannot be loaded; "
                f"decoder='pyav' needs neither (pip install av). Cause: {error}"
            ) from error
        try:
            return VideoDecoder(self._input(), dimension_order="NHWC")
        except (RuntimeError, ValueError) as error:
            raise self._not_decodable(error) from error

    def _not_decodable(self, reason: object) -> ValueError:
        return ValueError(f"{shown(self.path)} cannot be decoded as a video: {reason}")


def import_av() -> Any:
    """Import PyAV, or raise an ImportError that tells how to install it."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "video files need the av package: pip install av. Folders and lists of images work without it."
        ) from error
    return av

"""Video files, decoded by PyAV or torchcodec."""

import logging
import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .download import MAX_BYTES, download, is_url, shown
from .frame_source import Choice, Frame, FrameSource, FramesPerSecond, choose_frames

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2t .m2ts .m2v .m4v .mjpeg .mjpg .mkv "
    ".mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m".split()
)
# Where no rate is known, FFmpeg takes the ticks of a second, at least these, for frames.
_TICKS = 1000


class VideoReader(FrameSource):
    """
    A video file that can be read from start to end as often as needed, one frame in memory at a time.

    Of several video streams, the main one is read. Frames have the times that the file gives them, counted from its
    start. They look as in a browser: upright, with square pixels, HDR mapped to sRGB (torchcodec only turns them).

    Args:
        path: The video file, or an URL, which is downloaded into a temporary file first.
        decoder: "pyav" (the `av` package, which brings FFmpeg along) or "torchcodec" (needs an installed FFmpeg).
        name: The video's name in messages; by default its path.
        max_bytes: The largest file to download.
        strict: Whether damage is an error. Otherwise what can be decoded is used, and a warning names the first
            damaged frame.

    Attributes:
        file: The downloaded file of an URL, else None.
        fps: Frame rate stated by the file, or None.
        is_fps_nominal: Whether that is not the average: formats like Matroska do not count frames.
        length: Number of frames stated by the file or derived from its duration, or None. It may be wrong.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the address cannot be reached.
        ImportError: if the decoder is not installed or cannot be loaded.
        ValueError: if the file cannot be decoded (also while reading it) or the decoder is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        decoder: str = "pyav",
        name: str | None = None,
        max_bytes: int = MAX_BYTES,
        strict: bool = False,
    ):
        if decoder not in ("pyav", "torchcodec"):
            raise ValueError(f"decoder must be 'pyav' or 'torchcodec', got {decoder!r}")
        self.path: str | Path = path if is_url(path) else Path(path)
        self.name = name or shown(path)
        self.decoder = decoder
        self.strict = strict
        self.file: IO[bytes] | None = None
        self._warned = False
        self._idle_converters: list[Any] = []  # for HDR they take seconds to make
        if isinstance(self.path, Path) and not self.path.is_file():
            raise FileNotFoundError(f"video file not found: {path}")
        if decoder == "pyav":
            self._pyav = import_decoding()
        if is_url(path):
            self.file = download(str(path), max_bytes)
        self._read_metadata()

    def _read_metadata(self) -> None:
        if self.decoder == "pyav":
            with self._open_pyav() as (container, stream):
                rate, length = stream.average_rate, stream.frames or None
                self.is_fps_nominal = length is None  # FFmpeg averages over frames that are counted in the file
                if self.is_fps_nominal and rate is not None and rate >= _TICKS:
                    rate = None
                seconds = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 10**6
                self._mention_other_streams(container, stream)
        else:
            metadata = self._open_torchcodec().metadata
            rate, length = metadata.average_fps, getattr(metadata, "num_frames", None)
            seconds = getattr(metadata, "duration_seconds", None)
        self.fps = float(rate) if rate else None
        self._duration = float(seconds) if seconds else None
        # Files that were cut without encoding them anew count frames that are not shown.
        lengths = [length, round(self._duration * self.fps) if self._duration and self.fps else None]
        self.length = min((value for value in lengths if value), default=None)

    def _mention_other_streams(self, container: Any, stream: Any) -> None:
        count = len(self._pyav.list_video_streams(container))
        if count > 1:
            which = f"stream {stream.index} ({stream.width}×{stream.height})"
            logger.warning("%s has %d video streams: only %s is read", self.name, count, which)

    @property
    def duration(self) -> float | None:
        return self._duration

    @property
    def timed(self) -> bool:
        return True

    def read(self, chosen: Choice | None = None) -> Iterator[Frame]:
        """Yield the chosen frames (by default all) in order, with images as uint8 RGB arrays (H, W, 3)."""
        return self._read_pyav(chosen) if self.decoder == "pyav" else self._read_torchcodec(chosen)

    def count_frames(self) -> int:
        """Count the frames by decoding them: what a file states is not reliable."""
        if self.decoder == "torchcodec":
            return len(self._open_torchcodec())
        return sum(1 for _ in self._decode_pyav())

    def open_sound(self) -> Any:
        """Open the file once more, for its sound: an `av` container that the caller closes, or None."""
        container = import_decoding().open_container(self._input())
        if container.streams.best("audio") is None:  # or no decoder for it
            container.close()
            return None
        return container

    def _read_pyav(self, chosen: Choice | None) -> Generator[Frame]:
        convert = self._idle_converters.pop() if self._idle_converters else None
        for frame in choose_frames(self._decode_pyav(), chosen):
            convert = convert or self._pyav.RgbConverter(self._pixel_aspect)
            try:
                image = convert(frame.image)
            except self._pyav.FFmpegError as error:
                raise self._not_decodable(self._pyav.describe(error)) from error
            yield frame._replace(image=image)
        if convert is not None:
            self._idle_converters.append(convert)

    def _decode_pyav(self) -> Generator[Frame]:
        """Yield all frames, with `av.VideoFrame`s as images."""
        count, first_damage = 0, ""

        def report(damage: str) -> None:
            nonlocal first_damage
            first_damage = first_damage or damage
            message = f"{self.name} is damaged from frame {count} on: {damage}"
            if self.strict:
                raise ValueError(f"{message} (without strict, what can be decoded is used)")
            if not self._warned:
                logger.warning("%s; what can be decoded is used", message)
                self._warned = True

        with self._open_pyav() as (container, stream):
            self._pixel_aspect = stream.sample_aspect_ratio
            frames = self._pyav.decode(container, stream, report)
            for frame in self._pyav.number_and_time(frames, self._pyav.start_of(container), self.fps):
                count += 1
                yield frame
            is_known = stream.width > 0
        if first_damage and not count:
            hint = "" if is_known else f" (frames have at most {self._pyav.MOST_PIXELS} pixels)"
            raise self._not_decodable(first_damage + hint)

    @contextmanager
    def _open_pyav(self) -> Generator[tuple[Any, Any]]:
        """Open the file; yields the `av` container and the video stream to read."""
        try:
            container = self._pyav.open_container(self._input())
        except self._pyav.FFmpegError as error:
            raise self._not_decodable(self._pyav.describe(error)) from error
        with container:
            stream = self._pyav.choose_stream(container)
            if stream is None:
                pictures = " but a cover picture" if container.streams.video else ""
                raise self._not_decodable(f"it has no video stream{pictures}")
            if stream.codec_context is None:
                raise self._not_decodable("FFmpeg has no decoder for its video stream")
            yield container, stream

    def _input(self) -> "str | _FileView":
        return str(self.path) if self.file is None else _FileView(self.file)

    def _read_torchcodec(self, chosen: Choice | None) -> Generator[Frame]:
        video = self._open_torchcodec()
        indices = range(len(video))
        if chosen is not None and not isinstance(chosen, FramesPerSecond):
            indices, chosen = [index for index in indices if index in chosen], None

        def decode() -> Generator[Frame]:
            for index in indices:
                try:
                    frame = video.get_frame_at(index)
                except RuntimeError as error:
                    raise self._not_decodable(error) from error
                yield Frame(index, frame.pts_seconds, frame.data.numpy())

        yield from choose_frames(decode(), chosen)

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


class _FileView:
    """A file-like object with a position of its own in a shared file, which can so be read at several places."""

    _lock = threading.Lock()

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            self._file.seek(self._position)
            content = self._file.read(size)
            self._position = self._file.tell()
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset, whence = offset + self._position, os.SEEK_SET
        with self._lock:
            self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        return self._position


def import_av() -> Any:
    """Import PyAV, or raise an ImportError that tells how to install it."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "video files need the av package: pip install av. Folders and lists of images work without it."
        ) from error
    return av


def import_decoding() -> Any:
    """Import `decoding`, which needs PyAV; raises like `import_av`."""
    import_av()
    from . import decoding

    return decoding


__all__ = ["VIDEO_SUFFIXES", "VideoReader", "import_av", "import_decoding"]

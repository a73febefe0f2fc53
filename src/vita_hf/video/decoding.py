"""Decode video files with PyAV, damaged ones as far as possible, and tell when each frame is shown."""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import IO, Any

import av
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.stream import Disposition

from .frame_source import Frame
from .rgb import MOST_PIXELS, RgbConverter

Report = Callable[[str], None]

_NOT_A_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
_DECODER_OPTIONS = {"max_pixels": str(MOST_PIXELS)}
# A damaged file may give errors at every attempt.
_MOST_ERRORS = 100
# Formats whose duration stands in the file. That of others is an estimate.
_FORMATS_WITH_DURATION = frozenset({"asf", "avi", "flv", "matroska", "mov"})
# Seconds: a frame that is earlier than the one before by less than the first number comes with it; a step further back,
# or forward by more than the second number, is a new clock.
_ROUNDING, _LONGEST_STEP = 0.01, 3600.0


def open_container(file: str | IO[bytes]) -> Any:
    """Open a media file, whatever the encoding of its title and other tags."""
    # From version 19 on, PyAV does not trip over them.
    options: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    return av.open(file, options=_DECODER_OPTIONS, **options)


def list_video_streams(container: Any) -> list[Any]:
    """List the video streams that are neither covers nor previews."""
    return [stream for stream in container.streams.video if not stream.disposition & _NOT_A_VIDEO]


def choose_stream(container: Any) -> Any:
    """Choose the main video stream, as FFmpeg does; None if the file has no video."""
    streams, best = list_video_streams(container), container.streams.best("video")
    return best if best in streams else next(iter(streams), None)


def describe(error: FFmpegError) -> str:
    """Describe an error in words, without its number."""
    return error.strerror or type(error).__name__


def decode(container: Any, stream: Any, report: Report) -> Generator[Any]:
    """
    Decode a stream, and go on behind damaged parts.

    Args:
        container: From `open_container`, at its start.
        stream: From `choose_stream`.
        report: Called with the reason, in words, wherever something is damaged or missing.

    Yields:
        `av.VideoFrame`s in the order in which they are shown.
    """
    stream.thread_type = "SLICE"  # threads that decode whole frames lose errors
    stream.codec_context.options = _DECODER_OPTIONS
    end = 0.0  # of everything in the file: sound may go on after the last frame
    for packet in _packets(container, report):
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        if packet.is_corrupt:
            report("data is missing")
        try:
            frames = packet.decode()
        except EndOfFile:
            continue
        except FFmpegError as error:
            report(describe(error))
            continue
        for frame in frames:
            if frame.is_corrupt:
                report("parts of the picture are missing")
            yield frame
    duration = _seconds(container.duration)
    if duration and container.format.name.split(",")[0] in _FORMATS_WITH_DURATION:
        end -= start_of(container)
        if duration - end > max(0.5, 0.05 * duration):
            report(f"the file ends after {end:.2f} of {duration:.2f} s")


def _packets(container: Any, report: Report) -> Iterator[Any]:
    for _ in range(_MOST_ERRORS):
        try:
            yield from container.demux()
            return
        except FFmpegError as error:
            report(describe(error))


def start_of(container: Any) -> float:
    """Return when the first stream starts: that is where players begin to count."""
    return _seconds(container.start_time) or 0.0


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1_000_000


def number_and_time(frames: Iterable[Any], start: float, rate: float | None) -> Iterator[Frame]:
    """
    Number the frames and find out when each is shown. Times increase, whatever the file says.

    Args:
        frames: `av.VideoFrame`s.
        start: Time stamp of the start of the video, in seconds.
        rate: Frames per second, where time stamps are missing or jump; 25 if unknown.
    """
    step = 1 / (rate or 25)
    previous = None
    for index, frame in enumerate(frames):
        stamp = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        if previous is None:
            time = 0.0 if stamp is None or not 0 <= stamp - start <= _LONGEST_STEP else stamp - start
            start = start if stamp is None else stamp - time
        elif stamp is None:
            time = previous + step
        elif -_ROUNDING < stamp - start - previous <= 0:
            time = previous + min(step, 0.001)
        else:
            time = stamp - start
            if not previous < time <= previous + _LONGEST_STEP:  # the clock was set anew
                time = previous + step
                start = stamp - time
        yield Frame(index, time, frame)
        previous = time


__all__ = [
    "MOST_PIXELS",
    "FFmpegError",
    "RgbConverter",
    "choose_stream",
    "decode",
    "describe",
    "list_video_streams",
    "number_and_time",
    "open_container",
    "start_of",
]

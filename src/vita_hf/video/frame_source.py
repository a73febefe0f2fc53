"""The base class of all frame sources, and the choice of frames by rate or stride."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple

# Containers round times, many to milliseconds: a frame may be stamped that much later than it is due.
_ROUNDING = 0.001


class Frame(NamedTuple):
    """
    A frame of a video.

    Attributes:
        index: Its number in the video, from 0.
        time: Seconds from the start of the video to its presentation, or None if unknown.
        image: An image of any kind.
    """

    index: int
    time: float | None
    image: Any


class FrameSource(ABC):
    """
    The frames of one video, one at a time.

    Attributes:
        name: The video's name in messages.
        fps: Average frames per second, or None if unknown.
        is_fps_nominal: Whether `fps` is only the rate that the file is meant to have; see [`average_rate`].
        length: Number of frames as far as known without decoding, or None. For video files it may be wrong.
        duration: Seconds, as far as known without decoding, or None.
        timed: Whether frames have times.
        rereadable: Whether `read` can be called again.
    """

    name: str
    fps: float | None = None
    is_fps_nominal: bool = False
    length: int | None = None
    rereadable: bool = True

    @property
    def duration(self) -> float | None:
        return self.length / self.fps if self.length and self.fps else None

    @property
    def timed(self) -> bool:
        return self.fps is not None

    @abstractmethod
    def read(self, chosen: "Container[int] | FramesPerSecond | None" = None) -> Iterator[Frame]:
        """Yield the chosen frames (by default all) in order."""

    def frames(self, chosen: "Container[int] | FramesPerSecond | None" = None) -> Iterator[Any]:
        """Yield the images of the chosen frames (by default all) in order."""
        return (frame.image for frame in self.read(chosen))

    def open_sound(self) -> Any:
        """Open the video's sound, if it has any: an `av` container that the caller closes, or None."""
        return None

    def count_frames(self) -> int:
        """Count the frames, if need be by decoding them all."""
        return sum(1 for _ in self.read())

    def check(self) -> None:
        """Check what can be checked without decoding, so that a long run does not fail at its end."""
        return


def check_frame_size(where: str, size: Sequence[int], first: Sequence[int]) -> None:
    """Raise a ValueError if a frame has another size than the video's first frame."""
    if tuple(size) != tuple(first):
        raise ValueError(
            f"{where}: all frames of a video must have one size; this one is {size[0]}×{size[1]}, "
            f"the first is {first[0]}×{first[1]}"
        )


@dataclass(frozen=True)
class EveryNth(Container[int]):
    """The frame indices 0, `step`, 2·`step` … of a video of any length."""

    step: int

    def __contains__(self, index: Any) -> bool:
        return index % self.step == 0

    def count(self, source: FrameSource) -> int | None:
        """Estimate how many frames of a video are chosen; None if its length is unknown."""
        return None if source.length is None else math.ceil(source.length / self.step)


@dataclass(frozen=True)
class FramesPerSecond:
    """The frames that are on the screen 0, 1/`rate`, 2/`rate` … seconds after the first; each frame once."""

    rate: float

    def chooses(self, start: float, end: float) -> bool:
        """Tell whether a frame that is on the screen from `start` until `end` seconds is chosen."""
        due = math.ceil((start - _ROUNDING) * self.rate) / self.rate
        return due < end - _ROUNDING

    def count(self, source: FrameSource) -> int | None:
        """Estimate how many frames of a video are chosen; None if its duration is unknown."""
        if source.duration is None:
            return None
        frames = math.ceil(source.duration * self.rate)
        return frames if source.length is None else min(frames, source.length)


Sampling = EveryNth | FramesPerSecond
Choice = Container[int] | FramesPerSecond


def choose_frames(frames: Iterator[Frame], chosen: Choice | None) -> Iterator[Frame]:
    """Yield the chosen frames of all frames; [`FramesPerSecond`] needs their times."""
    if chosen is None:
        return frames
    if isinstance(chosen, FramesPerSecond):
        return _at_rate(frames, chosen)
    indices = frozenset(chosen) if isinstance(chosen, Collection) else chosen
    return (frame for frame in frames if frame.index in indices)


def _at_rate(frames: Iterator[Frame], chosen: FramesPerSecond) -> Iterator[Frame]:
    """A frame is on the screen until the next one; the last one as long as the one before it."""
    first: float | None = None
    duration = 0.0
    for frame, following in pairwise(chain(frames, [None])):
        assert frame is not None and frame.time is not None
        start = 0.0 if first is None else frame.time - first
        if following is None or following.time is None:
            duration -= _ROUNDING
        else:
            duration = following.time - frame.time
        if first is None or chosen.chooses(start, start + duration):
            yield frame
        first = frame.time - start


def sample_frames(source: FrameSource, fps: float | None = None, stride: int | None = None) -> Sampling | None:
    """
    Choose `fps` frames per second (all while the video has fewer), or every `stride`-th frame.

    Returns:
        The choice for [`FrameSource.read`]; None for all frames.

    Raises:
        ValueError: if `fps` is given and nothing says how fast the video plays.
    """
    if fps is not None:
        if not source.timed:
            raise ValueError(f"{source.name} does not state its frame rate: pass stride, not fps, or pass frame_rate")
        return FramesPerSecond(fps)
    return None if stride in (None, 1) else EveryNth(stride)


def average_rate(source: FrameSource, indices: Sequence[int], times: Sequence[float | None]) -> float | None:
    """
    Return a video's average frames per second: as stated, or measured where nothing is stated or frames disagree.

    Args:
        source: The video.
        indices: Numbers of some of its frames, in increasing order.
        times: When they are shown, in seconds.
    """
    first, last = times[0], times[-1]
    if first is None or last is None or first == last or not (source.fps is None or source.is_fps_nominal):
        return source.fps
    steps = indices[-1] - indices[0]
    is_right = source.fps is not None and abs(source.fps * (last - first) - steps) < 1
    return source.fps if is_right else steps / (last - first)


__all__ = [
    "Choice",
    "EveryNth",
    "Frame",
    "FrameSource",
    "FramesPerSecond",
    "Sampling",
    "average_rate",
    "check_frame_size",
    "choose_frames",
    "sample_frames",
]

"""The base class of all frame sources, and the choice of frames by rate or stride."""

import math
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


class FrameSource(ABC):
    """
    The frames of one video, one at a time.

    Attributes:
        name: The video's name in messages.
        fps: Frames per second, or None if unknown.
        length: Number of frames as far as known without decoding, or None. For video files it may be wrong.
        rereadable: Whether `frames` can be called again.
    """

    name: str
    fps: float | None = None
    length: int | None = None
    rereadable: bool = True

    @abstractmethod
    def frames(self, indices: Container[int] | None = None) -> Iterator[Any]:
        """Yield the frames with these indices (by default all) in order: images of any kind."""

    def count_frames(self) -> int:
        """Count the frames, if need be by decoding them all."""
        return sum(1 for _ in self.frames())

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
    """The frame indices ⌊0·step⌋, ⌊1·step⌋, ⌊2·step⌋ … of a video of any length; `step` is at least 1."""

    step: int | Fraction

    def __contains__(self, index: Any) -> bool:
        return math.ceil(index / self.step) * self.step < index + 1

    def __getitem__(self, position: int) -> int:
        return math.floor(position * self.step)

    def count(self, num_frames: int) -> int:
        """Count the indices below `num_frames`."""
        return math.ceil(num_frames / self.step)


def sample_frames(source: FrameSource, fps: float | None = None, stride: int | None = None) -> EveryNth | None:
    """
    Choose `fps` frames per second (all if the video has fewer), or every `stride`-th frame.

    Returns:
        The indices of the frames, or None for all frames.

    Raises:
        ValueError: if `fps` is given and the video does not state its frame rate.
    """
    step: int | Fraction = stride or 1
    if fps is not None:
        if source.fps is None:
            raise ValueError(f"{source.name} does not state its frame rate: pass stride, not fps")
        rate, target = (Fraction(value).limit_denominator(1_000_000) for value in (source.fps, fps))
        step = max(Fraction(1), rate / target)
    return None if step == 1 else EveryNth(step)


__all__ = ["EveryNth", "FrameSource", "check_frame_size", "sample_frames"]

"""Copy the sound of a video beside new frames."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any

from av.error import FFmpegError

from .decoding import describe, start_of

logger = logging.getLogger(__name__)


class SoundCopy(AbstractContextManager):
    """
    Encode the sound of one container into another, as AAC in stereo, as far as it can be decoded.

    Args:
        source: An `av` container with sound, which the block closes at its end.
        target: An `av` container to write, before its first packet.
    """

    def __init__(self, source: Any, target: Any):
        self._source, self._target = source, target
        self._frames: Iterator[Any] = source.decode(source.streams.best("audio"))
        self._stream = target.add_stream("aac", rate=48_000, layout="stereo")
        self._next: Any = None

    def __exit__(self, *error: object) -> None:
        self._source.close()

    def copy(self, start: float, end: float) -> None:
        """Copy the sound until `end`. Both are seconds in the source; the target starts at `start`."""
        while (frame := self._peek()) is not None:
            time = float(frame.pts * frame.time_base) - start_of(self._source) - start
            if time >= end - start:
                return
            self._next = None
            if time >= 0:
                frame.time_base = Fraction(1, frame.sample_rate)
                frame.pts = round(time * frame.sample_rate)
                try:
                    packets = self._stream.encode(frame)
                except (FFmpegError, ValueError) as error:  # other channels or another rate than before
                    self._give_up(error)
                    return
                self._target.mux(packets)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._target.mux(self._stream.encode())

    def _peek(self) -> Any:
        """Return the next frame of sound, or None at the end."""
        while self._next is None or self._next.pts is None:
            try:
                self._next = next(self._frames)
            except StopIteration:
                return None
            except FFmpegError as error:
                self._give_up(error)
        return self._next

    def _give_up(self, error: Exception) -> None:
        reason = describe(error) if isinstance(error, FFmpegError) else error
        logger.warning("the sound of %s is damaged and ends early: %s", self._source.name, reason)
        self._frames, self._next = iter(()), None


__all__ = ["SoundCopy"]

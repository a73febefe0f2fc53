"""Animated images and images of several pages, read by Pillow."""

import logging
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from PIL import Image

from .frame_source import Choice, Frame, FrameSource, choose_frames
from .images import open_image

logger = logging.getLogger(__name__)

# Browsers show frames that should pass faster than this for as long as the second number says, in seconds.
_TOO_SHORT, _INSTEAD = 0.011, 0.1


class AnimatedImage(FrameSource):
    """
    The frames of an animated WebP, PNG, AVIF or GIF, at its own times, or the pages of a TIFF, which have none.

    Args:
        image: A path, or an image opened by Pillow.
        name: The video's name in messages.
        strict: Whether damage is an error. Otherwise the frames before it are used, with a warning.
    """

    def __init__(self, image: str | Path | Image.Image, name: str, strict: bool = False):
        self.image = image
        self.name = name
        self.strict = strict
        self._warned = False
        with self._open() as opened:
            self.length = opened.n_frames  # ty: ignore[missing-attribute] - of animations
            self._has_times = opened.format != "TIFF"

    @property
    def timed(self) -> bool:
        return self._has_times or self.fps is not None

    def read(self, chosen: Choice | None = None) -> Iterator[Frame]:
        """Yield the chosen frames (by default all) in order, as Pillow images."""
        return choose_frames(self._decode(), chosen)

    def _decode(self) -> Generator[Frame]:
        time = 0.0
        with self._open() as image:
            for index in range(self.length or 0):
                try:
                    image.seek(index)
                    picture = image.copy()
                except MemoryError:
                    raise
                except Exception as error:  # damaged files make Pillow raise almost anything
                    self._report(index, error)
                    return
                if self._has_times:
                    yield Frame(index, time, picture)
                    seconds = image.info.get("duration", 0) / 1000
                    time += _INSTEAD if seconds < _TOO_SHORT else seconds
                else:
                    yield Frame(index, index / self.fps if self.fps else None, picture)

    def _report(self, index: int, error: Exception) -> None:
        message = f"{self.name} is damaged from frame {index} on: {error}"
        if self.strict or index == 0:
            raise ValueError(message) from error
        if not self._warned:
            logger.warning("%s; what can be decoded is used", message)
            self._warned = True

    def _open(self) -> AbstractContextManager[Image.Image]:
        return nullcontext(self.image) if isinstance(self.image, Image.Image) else open_image(self.image)


__all__ = ["AnimatedImage"]

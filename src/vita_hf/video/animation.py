"""Animated images and images of several pages, read by Pillow."""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from PIL import Image

from .frame_source import Choice, Frame, FrameSource, choose_frames
from .images import open_image

# Browsers show frames that should pass faster than this for as long as the second number says, in seconds.
_TOO_SHORT, _INSTEAD = 0.011, 0.1


class AnimatedImage(FrameSource):
    """
    The frames of an animated WebP, PNG, AVIF or GIF, at its own times, or the pages of a TIFF, which have none.

    Args:
        image: A path, or an image opened by Pillow.
        name: The video's name in messages.
    """

    def __init__(self, image: str | Path | Image.Image, name: str):
        self.image = image
        self.name = name
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
                image.seek(index)
                picture = image.copy()
                if self._has_times:
                    yield Frame(index, time, picture)
                    seconds = image.info.get("duration", 0) / 1000
                    time += _INSTEAD if seconds < _TOO_SHORT else seconds
                else:
                    yield Frame(index, index / self.fps if self.fps else None, picture)

    def _open(self) -> AbstractContextManager[Image.Image]:
        return nullcontext(self.image) if isinstance(self.image, Image.Image) else open_image(self.image)


__all__ = ["AnimatedImage"]

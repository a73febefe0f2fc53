"""Geometric transforms as in detectron2: each moves images, masks (uint8 (N, h, w), N ≥ 1) and polygons alike.

A polygon is a float64 array (P, 2) of (x, y); pixel (row, column) covers [column, column + 1) × [row, row + 1).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Resize:
    """Resize images bilinearly (antialiased when shrinking) and masks by nearest neighbor."""

    size: Size
    new_size: Size

    def image(self, image: Image.Image) -> Image.Image:
        return image.resize(self.new_size[::-1], Image.Resampling.BILINEAR)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        rows, columns = map(_nearest, self.size, self.new_size)
        # Whole columns first: masks decoded from RLE lie column by column in memory.
        return masks.transpose(0, 2, 1).take(columns, axis=1).take(rows, axis=2).transpose(0, 2, 1)

    def polygon(self, points: np.ndarray) -> np.ndarray:
        (height, width), (new_height, new_width) = self.size, self.new_size
        return points * (new_width / width, new_height / height)


@dataclass(frozen=True)
class Crop:
    """Cut out a window. Polygons are clipped at its edges, so that no later transform brings back what lay outside."""

    top: int
    left: int
    new_size: Size

    def image(self, image: Image.Image) -> Image.Image:
        height, width = self.new_size
        return image.crop((self.left, self.top, self.left + width, self.top + height))

    def masks(self, masks: np.ndarray) -> np.ndarray:
        height, width = self.new_size
        return masks[:, self.top : self.top + height, self.left : self.left + width]

    def polygon(self, points: np.ndarray) -> np.ndarray:
        return clip_polygon(points - (self.left, self.top), *self.new_size)


@dataclass(frozen=True)
class HorizontalFlip:
    """Swap left and right."""

    new_size: Size

    def image(self, image: Image.Image) -> Image.Image:
        return ImageOps.mirror(image)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        return masks[:, :, ::-1]

    def polygon(self, points: np.ndarray) -> np.ndarray:
        return points * (-1, 1) + (self.new_size[1], 0)


@dataclass(frozen=True)
class Rotate:
    """Rotate counter-clockwise about `center` (x, y in pixels); pixels from outside the frame are black."""

    degrees: float
    center: tuple[float, float]
    new_size: Size

    def image(self, image: Image.Image) -> Image.Image:
        return image.rotate(self.degrees, Image.Resampling.BILINEAR, center=self.center)

    def masks(self, masks: np.ndarray) -> np.ndarray:
        rotated = [Image.fromarray(mask).rotate(self.degrees, center=self.center) for mask in masks]  # nearest neighbor
        return np.stack([np.asarray(mask) for mask in rotated])

    def polygon(self, points: np.ndarray) -> np.ndarray:
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        return (points - self.center) @ np.array([[cos, -sin], [sin, cos]]) + self.center


@dataclass(frozen=True)
class Pad:
    """Add gray pixels of `value` at the bottom and the right."""

    value: int
    new_size: Size

    def image(self, image: Image.Image) -> Image.Image:
        padded = Image.new(image.mode, self.new_size[::-1], (self.value,) * len(image.getbands()))
        padded.paste(image)
        return padded

    def masks(self, masks: np.ndarray) -> np.ndarray:
        below, right = np.subtract(self.new_size, masks.shape[1:]).tolist()
        return np.pad(masks, ((0, 0), (0, below), (0, right)))

    def polygon(self, points: np.ndarray) -> np.ndarray:
        return points


Transform = Resize | Crop | HorizontalFlip | Rotate | Pad


@lru_cache(maxsize=64)  # called for every frame, mostly with the same sizes
def _nearest(old: int, new: int) -> np.ndarray:
    """Return the source index of each of `new` pixels along an axis, rounded at ties as Pillow rounds."""
    indices = Image.fromarray(np.arange(old, dtype=np.int32)[None])
    return np.asarray(indices.resize((new, 1), Image.Resampling.NEAREST))[0]


def clip_polygon(points: np.ndarray, height: float, width: float) -> np.ndarray:
    """
    Clip a polygon to [0, width] × [0, height] with the algorithm of Sutherland and Hodgman (CACM 1974).

    A polygon outside loses all its points. The parts of a concave polygon stay connected along the border.
    """
    for axis, sign, bound in ((0, -1, 0), (0, 1, width), (1, -1, 0), (1, 1, height)):
        beyond = sign * (points[:, axis] - bound)
        inside = beyond <= 0
        if inside.all():
            continue
        next_points, next_beyond = np.roll(points, -1, axis=0), np.roll(beyond, -1)
        crosses = inside != (next_beyond <= 0)
        # Each point is followed by the crossing of the bound and the edge that starts at the point, if they cross.
        fraction = beyond[crosses] / (beyond - next_beyond)[crosses]
        crossings = points.copy()
        crossings[crosses] += fraction[:, None] * (next_points - points)[crosses]
        crossings[crosses, axis] = bound
        points = np.stack([points, crossings], axis=1)[np.stack([inside, crosses], axis=1)]
    return points

"""Random transforms of a training clip: section 4 of the paper, `vita/data/augmentation.py` of the reference."""

from collections.abc import Sequence

import numpy as np

from ...video.resizing import resize_output_size
from .settings import ClipSettings, LargeScaleJitter
from .transforms import Crop, HorizontalFlip, Pad, Resize, Rotate, Size, Transform


def draw_transforms(
    size: Size, settings: ClipSettings, rng: np.random.Generator, *, is_image: bool = False
) -> list[tuple[Transform, ...]]:
    """
    Draw the transforms of each frame of a clip. All frames end up with the same size.

    If the frames are copies of one image (`is_image`), a rotation gives the clip motion.
    """
    stages: list[tuple[Transform, ...]] = []

    def add(*transforms: Transform) -> Size:
        """Add one transform for all frames, or one for each frame."""
        stages.append(transforms if len(transforms) > 1 else transforms * settings.num_frames)
        return transforms[0].new_size

    jitter = settings.large_scale_jitter
    if jitter is None:
        if rng.random() < settings.crop_probability:
            size = add(_draw_resize(size, settings.crop_resize_short_edges, settings.crop_max_long_edge, rng))
            size = add(*_draw_drifting_crop(size, settings, rng))
        size = add(_draw_resize(size, settings.short_edges, settings.max_long_edge, rng))
    if rng.random() < settings.flip_probability:
        add(HorizontalFlip(size))
    if is_image and settings.num_frames > 1 and settings.max_rotation_degrees > 0:
        add(*_draw_rotations(size, settings, rng))
    if jitter is not None:
        resize, crop = _draw_large_scale_jitter(size, jitter, rng)
        for transform in (resize, crop, Pad(settings.pad_value, (jitter.size, jitter.size))):
            add(transform)
    return list(zip(*stages))


def _draw_resize(size: Size, short_edges: Sequence[int], max_long_edge: int | None, rng: np.random.Generator) -> Resize:
    short_edge = short_edges[int(rng.integers(len(short_edges)))]
    return Resize(size, resize_output_size(*size, short_edge, max_long_edge))


def _draw_drifting_crop(size: Size, settings: ClipSettings, rng: np.random.Generator) -> list[Crop]:
    """Draw a window of constant size that moves down and right through the clip, or up and left."""
    smallest, largest = settings.crop_size
    height, width = (int(rng.integers(min(side, smallest), min(side, largest) + 1)) for side in size)
    room = np.subtract(size, (height, width))
    first = rng.integers(room + 1)
    last = rng.integers(first, room + 1)
    position = np.sort(rng.random(settings.num_frames))[:, None]
    corners = np.round(first * position + last * (1 - position)).astype(int)
    if rng.random() < 0.5:
        corners = corners[::-1]
    return [Crop(top, left, (height, width)) for top, left in corners.tolist()]


def _draw_rotations(size: Size, settings: ClipSettings, rng: np.random.Generator) -> list[Rotate]:
    """Draw rotations in one direction about one center."""
    degrees = np.sort(rng.uniform(-settings.max_rotation_degrees, settings.max_rotation_degrees, settings.num_frames))
    if rng.random() < 0.5:
        degrees = degrees[::-1]
    x, y = rng.uniform(*settings.rotation_center, size=2)
    center = (float(x * size[1]), float(y * size[0]))
    return [Rotate(angle, center, size) for angle in degrees.tolist()]


def _draw_large_scale_jitter(size: Size, jitter: LargeScaleJitter, rng: np.random.Generator) -> tuple[Resize, Crop]:
    scaled = jitter.size * rng.uniform(jitter.min_scale, jitter.max_scale)
    height, width = np.maximum(1, np.round(np.multiply(size, scaled / max(size)))).astype(int).tolist()
    excess = np.maximum(np.subtract((height, width), jitter.size), 0)
    # One random number for both axes, as in detectron2's fixed-size crop.
    top, left = np.round(excess * rng.random()).astype(int).tolist()
    window = (min(height, jitter.size), min(width, jitter.size))
    return Resize(size, (height, width)), Crop(top, left, window)

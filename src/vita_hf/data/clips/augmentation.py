"""Draw the random transforms of a training clip.

Source: section 4 of the paper (NeurIPS 2022, arXiv 2206.04403) and `vita/data/augmentation.py` of the authors'
repository.
"""

from collections.abc import Sequence

import numpy as np

from ...video.resizing import resize_output_size
from .settings import ClipSettings, LargeScaleJitter
from .transforms import Crop, HorizontalFlip, Pad, Resize, Rotate, Size, Transform


def draw_transforms(
    size: Size, settings: ClipSettings, rng: np.random.Generator, *, is_image: bool = False
) -> list[tuple[Transform, ...]]:
    """
    Draw one sequence of transforms for each frame of a clip; all of them lead to the same size.

    Args:
        size: Height and width of the frames.
        settings: Number of frames and augmentation.
        rng: Source of all random numbers.
        is_image: Whether the frames are copies of one image. A rotation then gives the clip motion.
    """
    stages: list[list[Transform]] = []  # each holds one transform per frame

    def add(transforms: Sequence[Transform]) -> Size:
        stages.append([*transforms])
        return transforms[0].new_size

    def add_to_all(transform: Transform) -> Size:
        return add([transform] * settings.num_frames)

    jitter = settings.large_scale_jitter
    if jitter is None:
        if rng.random() < settings.crop_probability:
            size = add_to_all(_draw_resize(size, settings.crop_resize_short_edges, settings.crop_max_long_edge, rng))
            size = add(_draw_drifting_crop(size, settings, rng))
        size = add_to_all(_draw_resize(size, settings.short_edges, settings.max_long_edge, rng))
    if rng.random() < settings.flip_probability:
        add_to_all(HorizontalFlip(size))
    if is_image and settings.num_frames > 1 and settings.max_rotation_degrees > 0:
        add(_draw_rotations(size, settings, rng))
    if jitter is not None:
        for transform in _draw_large_scale_jitter(size, jitter, settings.pad_value, rng):
            add_to_all(transform)
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
    """Draw rotations in one direction about one centre."""
    degrees = np.sort(rng.uniform(-settings.max_rotation_degrees, settings.max_rotation_degrees, settings.num_frames))
    if rng.random() < 0.5:
        degrees = degrees[::-1]
    x, y = rng.uniform(*settings.rotation_center, size=2)
    center = (float(x * size[1]), float(y * size[0]))
    return [Rotate(angle, center, size) for angle in degrees.tolist()]


def _draw_large_scale_jitter(
    size: Size, jitter: LargeScaleJitter, pad_value: int, rng: np.random.Generator
) -> list[Transform]:
    scaled = jitter.size * rng.uniform(jitter.min_scale, jitter.max_scale)
    height, width = np.maximum(1, np.round(np.multiply(size, scaled / max(size)))).astype(int).tolist()
    excess = np.maximum(np.subtract((height, width), jitter.size), 0)
    # One random number for both axes, as in detectron2's fixed-size crop.
    top, left = np.round(excess * rng.random()).astype(int).tolist()
    return [
        Resize(size, (height, width)),
        Crop(top, left, (min(height, jitter.size), min(width, jitter.size))),
        Pad(pad_value, (jitter.size, jitter.size)),
    ]

"""The random choices of a training clip: its settings, and the transforms drawn from them.

Source: section 4 of the paper (NeurIPS 2022, arXiv 2206.04403) and `vita/data/augmentation.py` of the authors'
repository.
"""

from collections.abc import Sequence

import numpy as np

from ...video.resizing import resize_output_size
from .settings import ClipSettings, LargeScaleJitter
from .transforms import Crop, HorizontalFlip, Pad, Resize, Rotate, Transform

Size = tuple[int, int]  # height, width


def draw_transforms(
    size: Size, settings: ClipSettings, rng: np.random.Generator, *, is_image: bool = False
) -> list[tuple[Transform, ...]]:
    """
    Draw the transforms of a clip's frames: one sequence a frame, which all lead to the same size.

    Args:
        size: height and width of the frames.
        settings: what to draw from.
        rng: where every random number comes from.
        is_image: whether the frames are copies of one image, which are rotated to give a clip motion.
    """
    stages: list[list[Transform]] = []  # one transform for each frame

    def add(transforms: Transform | list[Transform]) -> Size:
        stages.append(transforms if isinstance(transforms, list) else [transforms] * settings.num_frames)
        return stages[-1][0].new_size

    jitter = settings.large_scale_jitter
    if jitter is None:
        if rng.random() < settings.crop_probability:
            size = add(_draw_resize(size, settings.crop_resize_short_edges, settings.crop_max_long_edge, rng))
            size = add(_draw_drifting_crop(size, settings, rng))
        size = add(_draw_resize(size, settings.short_edges, settings.max_long_edge, rng))
    if rng.random() < settings.flip_probability:
        add(HorizontalFlip(size))
    if is_image and settings.num_frames > 1 and settings.max_rotation_degrees > 0:
        add(_draw_rotation(size, settings, rng))
    if jitter is not None:
        for transform in _draw_large_scale_jitter(size, jitter, settings.pad_value, rng):
            add(transform)
    return list(zip(*stages))


def _draw_resize(size: Size, short_edges: Sequence[int], max_long_edge: int | None, rng) -> Resize:
    short_edge = short_edges[rng.integers(len(short_edges))]
    return Resize(size, resize_output_size(*size, short_edge, max_long_edge))


def _draw_drifting_crop(size: Size, settings: ClipSettings, rng) -> list[Crop]:
    """A window of constant size that moves down and right through the clip, or up and left."""
    smallest, largest = settings.crop_size
    window = tuple(int(rng.integers(min(side, smallest), min(side, largest) + 1)) for side in size)
    room = np.subtract(size, window)
    first = rng.integers(room + 1)
    last = rng.integers(first, room + 1)
    position = np.sort(rng.random(settings.num_frames))[:, None]
    corners = np.round(first * position + last * (1 - position)).astype(int)
    if rng.random() < 0.5:
        corners = corners[::-1]
    return [Crop(top, left, window) for top, left in corners.tolist()]


def _draw_rotation(size: Size, settings: ClipSettings, rng) -> list[Rotate]:
    """Turn steadily in one sense about one centre."""
    degrees = np.sort(rng.uniform(-settings.max_rotation_degrees, settings.max_rotation_degrees, settings.num_frames))
    if rng.random() < 0.5:
        degrees = degrees[::-1]
    x, y = rng.uniform(*settings.rotation_center, size=2)
    center = (float(x * size[1]), float(y * size[0]))
    return [Rotate(angle, center, size) for angle in degrees.tolist()]


def _draw_large_scale_jitter(size: Size, jitter: LargeScaleJitter, pad_value: int, rng) -> list[Transform]:
    scaled = jitter.size * rng.uniform(jitter.min_scale, jitter.max_scale)
    resized = np.maximum(1, np.round(np.multiply(size, scaled / max(size)))).astype(int)
    excess = np.maximum(resized - jitter.size, 0)
    # One number for both axes, as in detectron2's fixed-size crop.
    top, left = np.round(excess * rng.random()).astype(int).tolist()
    window = tuple(np.minimum(resized, jitter.size).tolist())
    return [
        Resize(size, tuple(resized.tolist())),
        Crop(top, left, window),
        Pad(pad_value, (jitter.size, jitter.size)),
    ]


__all__ = ["draw_transforms"]

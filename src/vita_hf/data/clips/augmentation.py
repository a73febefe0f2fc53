"""The random choices of a training clip: its settings, and the transforms drawn from them.

Source: section 4 of the paper (NeurIPS 2022, arXiv 2206.04403) and `vita/data/augmentation.py` of the authors'
repository.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...video.resizing import resize_output_size
from .transforms import Crop, HorizontalFlip, Pad, Resize, Rotate, Transform

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class LargeScaleJitter:
    """
    Resize to fit `size` × `size` times a factor, then crop and pad to exactly `size` × `size` pixels.

    Attributes:
        size: height and width of every image.
        min_scale, max_scale: bounds of the uniform factor.
    """

    size: int = 1024
    min_scale: float = 0.1
    max_scale: float = 2.0

    def __post_init__(self):
        _check(
            isinstance(self.size, int) and self.size >= 1, "large_scale_jitter.size", "a positive integer", self.size
        )
        scales = (self.min_scale, self.max_scale)
        _check(
            _is_range(scales, 0) and scales[0] > 0,
            "large_scale_jitter.min_scale, max_scale",
            "0 < min_scale ≤ max_scale",
            scales,
        )


@dataclass(frozen=True)
class ClipSettings:
    """
    How clips are drawn and augmented. The defaults are VITA's for YouTube-VIS 2019.

    Attributes:
        num_frames: T, frames in a clip.
        frame_range: the most frames between the reference frame and any other.
        crop_probability: of the drifting crop, once a clip.
        crop_resize_short_edges: before the crop, the shorter side becomes one of these …
        crop_max_long_edge: … and the longer at most this; None for no limit.
        crop_size: smallest and largest side of the crop, in pixels.
        short_edges: the shorter side becomes one of these (one choice a clip) …
        max_long_edge: … and the longer at most this; None for no limit.
        flip_probability: of the horizontal flip, once a clip.
        max_rotation_degrees: of the frames of a clip made from a single image. 0 for no rotation.
        rotation_center: bounds of the centre's x and y, as parts of the width and the height.
        large_scale_jitter: instead of the crop and the resizing above, if not None; a mapping is taken, too.
        pad_value: grey value in [0, 255] with which the large-scale jitter pads.

    Raises:
        ValueError: a value that can't work; the message names the key.
    """

    num_frames: int = 5
    frame_range: int = 20
    crop_probability: float = 0.5
    crop_resize_short_edges: Sequence[int] = (400, 500, 600)
    crop_max_long_edge: int | None = 1333
    crop_size: Sequence[int] = (384, 600)
    short_edges: Sequence[int] = (288, 320, 352, 384, 416, 448, 480, 512)
    max_long_edge: int | None = 768
    flip_probability: float = 0.5
    max_rotation_degrees: float = 15.0
    rotation_center: Sequence[float] = (0.4, 0.6)
    large_scale_jitter: LargeScaleJitter | None = None
    pad_value: int = 128

    def __post_init__(self):
        for name in ("crop_resize_short_edges", "crop_size", "short_edges", "rotation_center"):
            value = getattr(self, name)
            _check(isinstance(value, list | tuple) and len(value) > 0, name, "a list of numbers", value)
            object.__setattr__(self, name, tuple(value))  # from YAML they are lists
        if isinstance(self.large_scale_jitter, Mapping):
            jitter = _from_mapping(LargeScaleJitter, self.large_scale_jitter, "large_scale_jitter.")
            object.__setattr__(self, "large_scale_jitter", jitter)
        jitter = self.large_scale_jitter
        is_jitter = jitter is None or isinstance(jitter, LargeScaleJitter)
        _check(is_jitter, "large_scale_jitter", "null or a mapping", jitter)
        lowest_range = 1 if isinstance(self.num_frames, int) and self.num_frames > 1 else 0
        for name, lowest in (("num_frames", 1), ("frame_range", lowest_range), ("pad_value", 0)):
            value = getattr(self, name)
            _check(_is_integer(value) and value >= lowest, name, f"an integer of at least {lowest}", value)
        _check(self.pad_value <= 255, "pad_value", "at most 255", self.pad_value)
        for name in ("crop_probability", "flip_probability"):
            value = getattr(self, name)
            _check(_is_number(value) and 0 <= value <= 1, name, "a number in [0, 1]", value)
        for name in ("crop_resize_short_edges", "short_edges"):
            value = getattr(self, name)
            _check(all(_is_integer(v) and v >= 1 for v in value), name, "positive integers", value)
        for name in ("crop_max_long_edge", "max_long_edge"):
            value = getattr(self, name)
            _check(value is None or (_is_integer(value) and value >= 1), name, "null or a positive integer", value)
        _check(
            _is_range(self.crop_size, 1) and all(map(_is_integer, self.crop_size)),
            "crop_size",
            "two integers, 1 ≤ smallest ≤ largest",
            self.crop_size,
        )
        degrees = self.max_rotation_degrees
        _check(_is_number(degrees) and degrees >= 0, "max_rotation_degrees", "a number of at least 0", degrees)
        _check(_is_range(self.rotation_center, 0), "rotation_center", "two ascending numbers", self.rotation_center)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "ClipSettings":
        """Read a recipe's `clips` section: the attributes by name. Raises ValueError for others, naming them."""
        return _from_mapping(cls, settings, "")


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


def _from_mapping(cls, values: Mapping[str, Any], prefix: str):
    unknown = sorted(set(values) - {field.name for field in fields(cls)})
    if unknown:
        names = ", ".join(prefix + field.name for field in fields(cls))
        raise ValueError(f"clips: unknown key {', '.join(prefix + str(name) for name in unknown)}; there are {names}")
    return cls(**values)


def _is_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_range(value, lowest: float) -> bool:
    return len(value) == 2 and all(map(_is_number, value)) and lowest <= value[0] <= value[1]


def _check(condition: bool, name: str, expected: str, got) -> None:
    if not condition:
        raise ValueError(f"clips.{name}: expected {expected}, got {got!r}")


__all__ = ["ClipSettings", "LargeScaleJitter", "draw_transforms"]

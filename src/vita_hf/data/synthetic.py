"""Synthetic videos with exact instance masks: textured shapes that move, deform, occlude one another, leave and return.

The pair (seed, index) decides everything about a video: each frame can be rendered on its own, in any order, and a
video of 2,000 frames begins like one of 20. Six categories differ in outline, in texture and, loosely, in one of their
two colours. About every fourth video holds two look-alikes that only their paths tell apart.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as mask_api
from tqdm.auto import tqdm

from ..files import write_atomically
from ..ops.rle import encode_masks
from .categories import CATEGORIES

CATEGORY_NAMES = CATEGORIES["synthetic"]
"""Names of the categories in the order of a model's labels. Their ids in annotation files count from 1."""

_SHUTTER_SAMPLES = 3  # a frame with motion blur is the mean of as many renders
_EDGE = 0.75  # half the width of an anti-aliased edge, in pixels


# Per category: the distance of the outline from the centre in each direction, 1 at the farthest.
_OUTLINES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    np.ones_like,
    lambda angle: 1 / (np.sqrt(2) * np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))),
    lambda angle: 0.5 / np.cos(np.mod(angle, 2 * np.pi / 3) - np.pi / 3),
    lambda angle: 0.45 + 0.55 * (np.abs(np.mod(angle, 2 * np.pi / 5) - np.pi / 5) / (np.pi / 5)) ** 1.6,
    lambda angle: 0.78 + 0.22 * np.cos(6 * angle),
    lambda angle: 0.68 + 0.32 * np.cos(2 * angle),
)
# Per category: the share of the second colour, 0 to 1, at coordinates in units of the object's radius.
_PATTERNS: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    lambda x, y: 0.5 + 0.5 * np.sin(9 * x),
    lambda x, y: (np.sin(6.5 * x) * np.sin(6.5 * y) > 0).astype(np.float32),
    lambda x, y: (np.hypot(np.mod(x * 2.4, 1) - 0.5, np.mod(y * 2.4, 1) - 0.5) < 0.3).astype(np.float32),
    lambda x, y: np.clip(0.5 + 0.7 * y, 0, 1),
    lambda x, y: 0.5 + 0.5 * np.cos(11 * np.hypot(x, y)),
    lambda x, y: 0.5 + 0.5 * np.sin(5 * x + 3 * np.sin(4 * y)),
)


def _draw_colour(rng: np.random.Generator, hue: float) -> np.ndarray:
    """Draw a saturated RGB colour in [0, 1]; the hue has a period of 6."""
    rgb = np.clip(np.abs(np.mod(hue + np.array([0.0, 4.0, 2.0]), 6) - 3) - 1, 0, 1)
    return (rng.uniform(0.65, 1.0) * (1 - rng.uniform(0.6, 0.95) * (1 - rgb))).astype(np.float32)


@dataclass(frozen=True)
class _Wave:
    """A smooth motion: the sum of two sines of the frame number."""

    amplitudes: np.ndarray
    periods: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, amplitude: float, fastest: float, slowest: float) -> "_Wave":
        share = rng.uniform(0.65, 0.95)
        periods = rng.uniform(fastest, slowest, 2) * np.array([1.0, 0.6])
        return cls(amplitude * np.array([share, 1 - share]), periods, rng.uniform(0, 2 * np.pi, 2))

    def at(self, time: float) -> float:
        return float((self.amplitudes * np.sin(2 * np.pi * time / self.periods + self.phases)).sum())


@dataclass(frozen=True)
class _Object:
    """One object. Lengths are in units of the frame's shorter side."""

    category: int
    colours: tuple[np.ndarray, np.ndarray]
    radius: float
    centre: tuple[float, float]
    path: tuple[_Wave, _Wave]
    growth: _Wave
    angle: float
    spin: float
    stretch: _Wave
    wobble: _Wave

    @classmethod
    def draw(cls, rng: np.random.Generator, extent: tuple[float, float]) -> "_Object":
        """Draw an object for a frame of this width and height, in units of the shorter side."""
        leaves = rng.random() < 0.3  # swings out of the frame and back
        amplitudes = rng.uniform(0.1, 0.4, 2) * np.array(extent)
        if leaves:
            axis = int(rng.integers(2))
            amplitudes[axis] = rng.uniform(0.65, 0.9) * extent[axis]
        x, y = (side * rng.uniform(0.25, 0.75) for side in extent)
        category = int(rng.integers(len(CATEGORY_NAMES)))
        return cls(
            category=category,
            colours=(_draw_colour(rng, rng.normal(category, 0.5)), _draw_colour(rng, rng.uniform(0, 6))),
            radius=rng.uniform(0.14, 0.26),
            centre=(x, y),
            path=(_Wave.draw(rng, amplitudes[0], 45, 120), _Wave.draw(rng, amplitudes[1], 45, 120)),
            growth=_Wave.draw(rng, 0.25, 30, 90),
            angle=rng.uniform(0, 2 * np.pi),
            spin=rng.uniform(-0.15, 0.15),
            stretch=_Wave.draw(rng, 0.15, 15, 50),
            wobble=_Wave.draw(rng, 0.08, 10, 30),
        )

    def render(self, time: float, height: int, width: int) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
        """Return rows, columns, colours (h, w, 3) and coverage (h, w) in [0, 1]; None if outside the frame."""
        unit = min(height, width)
        x0 = (self.centre[0] + self.path[0].at(time)) * unit
        y0 = (self.centre[1] + self.path[1].at(time)) * unit
        radius = self.radius * unit * np.exp(self.growth.at(time))
        stretch = np.exp(self.stretch.at(time))
        reach = radius * max(stretch, 1 / stretch) * 1.15 + 2
        top, bottom = max(0, int(y0 - reach)), min(height, int(y0 + reach) + 2)
        left, right = max(0, int(x0 - reach)), min(width, int(x0 + reach) + 2)
        if top >= bottom or left >= right:
            return None
        dy = (np.arange(top, bottom, dtype=np.float32) + 0.5 - y0)[:, None]
        dx = (np.arange(left, right, dtype=np.float32) + 0.5 - x0)[None]
        angle = self.angle + self.spin * time
        cos, sin = np.cos(angle), np.sin(angle)
        x = (cos * dx + sin * dy) / (radius * stretch)
        y = (cos * dy - sin * dx) / (radius / stretch)
        direction = np.arctan2(y, x)
        outline = _OUTLINES[self.category](direction) * (1 + self.wobble.at(time) * np.sin(3 * direction))
        coverage = np.clip((outline - np.hypot(x, y)) * radius / (2 * _EDGE) + 0.5, 0, 1)
        if not coverage.any():
            return None
        mix = _PATTERNS[self.category](x, y)[..., None]
        colours = (1 - mix) * self.colours[0] + mix * self.colours[1]
        return slice(top, bottom), slice(left, right), colours, coverage


def _draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw smooth noise of several scales in muted colours, (height, width, 3) in [0, 1]."""
    base = rng.uniform(0.25, 0.6, 3).astype(np.float32)
    background = np.broadcast_to(base, (height, width, 3)).copy()
    for cells, strength in ((3, 0.22), (7, 0.14), (20, 0.10)):
        shape = (max(2, round(cells * height / min(height, width))), max(2, round(cells * width / height)))
        luminance = rng.uniform(-1, 1, shape)
        for channel in range(3):
            coarse = (0.7 * luminance + 0.3 * rng.uniform(-1, 1, shape)).astype(np.float32)
            fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            background[..., channel] += strength * np.asarray(fine)
    return np.clip(background, 0, 1)


class SyntheticVideo:
    """
    One video, rendered frame by frame. Iteration yields all frames.

    Args:
        seed, index: Decide the content of the video.
        size: (height, width) in pixels, each at least 32.
        length: Number of frames.

    Attributes:
        labels: Int64 array (N,): each object's index into `CATEGORY_NAMES`, the farthest object first.

    Raises:
        ValueError: if a side is shorter than 32 pixels, or `length` is less than 1.

    Example:
    ```python
    >>> from vita_hf.data.synthetic import CATEGORY_NAMES, SyntheticVideo

    >>> video = SyntheticVideo(seed=0, index=0, size=(96, 128), length=8)
    >>> [CATEGORY_NAMES[label] for label in video.labels]
    ['flower', 'flower', 'flower', 'peanut']
    >>> image, masks = video.frame(3)
    >>> image.shape, masks.shape
    ((96, 128, 3), (4, 96, 128))

    ```
    """

    def __init__(self, seed: int, index: int, size: tuple[int, int] = (96, 128), length: int = 16):
        height, width = size
        if min(size) < 32:
            raise ValueError(f"size: expected a height and a width of at least 32 pixels, got {height}×{width}")
        if length < 1:
            raise ValueError(f"length: expected at least 1 frame, got {length}")
        self.seed, self.index, self.size, self.length = seed, index, (height, width), length
        rng = np.random.default_rng([seed, index])
        extent = (width / min(size), height / min(size))
        count = int(rng.integers(2, 5))
        objects = [_Object.draw(rng, extent) for _ in range(count)]
        if rng.random() < 0.25:
            original, twin = objects[0], _Object.draw(rng, extent)
            radius = original.radius * rng.uniform(0.9, 1.1)
            objects[1] = replace(twin, category=original.category, colours=original.colours, radius=radius)
        self._objects = [objects[i] for i in rng.permutation(count)]
        self.labels = np.array([item.category for item in self._objects])
        self._background = _draw_background(rng, round(1.3 * height), round(1.3 * width))  # larger than a frame, to pan
        self._pan = (_Wave.draw(rng, 0.12, 25, 70), _Wave.draw(rng, 0.12, 25, 70))
        self._light = _Wave.draw(rng, rng.uniform(0, 0.3), 12, 50)
        self._tint = rng.uniform(-0.08, 0.08, 3).astype(np.float32)
        self._shutter = rng.uniform(0.3, 0.9) if rng.random() < 0.4 else 0.0
        self._noise = rng.uniform(0.005, 0.03)

    def frame(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Render one frame.

        Args:
            time: Index of the frame, in [0, length).

        Returns:
            The image, uint8 (H, W, 3), and the visible pixels of each object, bool (N, H, W). The masks are disjoint,
            show the middle of the exposure, and are empty for an object that is outside the frame or hidden.

        Raises:
            IndexError: if there is no such frame.
        """
        if not 0 <= time < self.length:
            raise IndexError(f"frame {time} of a video of {self.length} frames")
        if self._shutter:
            shifts = self._shutter * (np.arange(_SHUTTER_SAMPLES) / (_SHUTTER_SAMPLES - 1) - 0.5)
            renders = [self._render(time + shift) for shift in shifts]
            image, masks = np.mean([picture for picture, _ in renders], axis=0), renders[_SHUTTER_SAMPLES // 2][1]
        else:
            image, masks = self._render(time)
        image = image * (np.exp(self._light.at(time)) + self._tint)
        noise = np.random.default_rng([self.seed, self.index, time]).standard_normal(image.shape, dtype=np.float32)
        return np.clip((image + self._noise * noise) * 255 + 0.5, 0, 255).astype(np.uint8), masks

    def _render(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.size
        room = [big - small for big, small in zip(self._background.shape, self.size)]
        top, left = (round((0.5 + pan.at(time) / 0.3) * space) for pan, space in zip(self._pan, room))
        top, left = min(max(top, 0), room[0]), min(max(left, 0), room[1])
        image = self._background[top : top + height, left : left + width].copy()
        masks = np.zeros((len(self._objects), height, width), dtype=bool)
        for mask, item in zip(masks, self._objects):
            rendered = item.render(time, height, width)
            if rendered is None:
                continue
            rows, columns, colours, coverage = rendered
            image[rows, columns] += coverage[..., None] * (colours - image[rows, columns])
            inside = coverage > 0.5
            masks[:, rows, columns] &= ~inside  # this object hides the ones behind it
            mask[rows, columns] = inside
        return image, masks

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.frame(time) for time in range(self.length))


def annotate(
    video: SyntheticVideo, video_id: int, file_names: Sequence[str], masks: Iterable[np.ndarray]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    Describe a video in the format of YouTube-VIS.

    Args:
        video: A video of N objects.
        video_id: Id of the video in the annotation file.
        file_names: Names of its frames.
        masks: The masks of each frame, bool (N, H, W), from [`SyntheticVideo.frame`].

    Returns:
        The `videos` entry, and the `annotations` of the objects that are ever visible, without ids.
    """
    rles = [
        [rle if mask.any() else None for rle, mask in zip(encode_masks(torch.from_numpy(frame)), frame)]
        for frame in masks
    ]
    height, width = video.size
    entry = {"id": video_id, "height": height, "width": width, "length": video.length, "file_names": list(file_names)}
    annotations = [
        {
            "video_id": video_id,
            "category_id": int(label) + 1,
            "iscrowd": 0,
            "segmentations": list(track),
            "bboxes": [rle and mask_api.toBbox(rle).tolist() for rle in track],
            "areas": [rle and int(mask_api.area(rle)) for rle in track],
        }
        for label, track in zip(video.labels, zip(*rles))
        if any(track)
    ]
    return entry, annotations


def annotation_file_content(annotated: Sequence[tuple[dict, list[dict]]], description: str) -> dict[str, Any]:
    """Assemble the content of an annotation file from what [`annotate`] returned for each video."""
    annotations = [annotation for _, annotations in annotated for annotation in annotations]
    return {
        "info": {"description": description},
        "videos": [entry for entry, _ in annotated],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CATEGORY_NAMES)],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }


def _write_video(
    folder: Path, seed: int, size: tuple[int, int], length: int, index: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write a video's frames as JPEG files and annotate it."""
    video = SyntheticVideo(seed, index, size, length)
    (folder / f"{index:05d}").mkdir(parents=True, exist_ok=True)
    names = [f"{index:05d}/{time:05d}.jpg" for time in range(length)]
    masks = []
    for name, (image, frame_masks) in zip(names, video):
        Image.fromarray(image).save(folder / name, quality=92)
        masks.append(frame_masks)
    return annotate(video, index + 1, names, masks)


def write_synthetic_dataset(
    output: str | os.PathLike,
    *,
    seed: int,
    videos: int,
    size: tuple[int, int] = (96, 128),
    length: int = 16,
    workers: int = 1,
) -> Path:
    """
    Write a dataset in the format of YouTube-VIS: `annotations.json` and `JPEGImages/<video>/<frame>.jpg`.

    The annotation file is written last, so that it exists only in a complete dataset.

    Args:
        output: Folder to write.
        seed, size, length: See [`SyntheticVideo`].
        videos: Number of videos; their indices count from 0.
        workers: Number of processes that render.

    Returns:
        Path of the annotation file.

    Raises:
        ValueError: if a number is too small.
        FileExistsError: if the folder holds a dataset already.
    """
    if videos < 1:
        raise ValueError(f"videos: expected at least 1, got {videos}")
    SyntheticVideo(seed, 0, size, length)  # fail before any work if an argument is wrong
    annotation_file = Path(output, "annotations.json")
    if annotation_file.exists():
        raise FileExistsError(f"{annotation_file} exists: choose another folder, or remove this one")
    write = partial(_write_video, Path(output, "JPEGImages"), seed, size, length)
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        annotated = pool.map(write, range(videos), chunksize=4) if pool else map(write, range(videos))
        annotated = list(tqdm(annotated, total=videos, desc="rendering", unit="video"))
    content = annotation_file_content(annotated, f"vita-hf synthetic videos, seed {seed}")
    write_atomically(annotation_file, json.dumps(content).encode())
    return annotation_file

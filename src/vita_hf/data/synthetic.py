"""Synthetic videos with exact instance masks: textured shapes that move, deform, occlude one another, leave and return.

Six categories differ in outline, in texture and, loosely, in color. About one video in four contains two look-alikes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as mask_api

from ..files import RunRecord, write_atomically
from ..ops.rle import encode_masks
from ..progress import progress_bar
from .categories import CATEGORIES

CATEGORY_NAMES = CATEGORIES["synthetic"]
"""Names of the categories in the order of a model's labels. Their ids in annotation files count from 1."""

_EDGE = 0.75  # half the width of an anti-aliased edge, in pixels

# Per category: the distance of the outline from the center in each direction, 1 at the farthest.
_OUTLINES = (
    np.ones_like,
    lambda angle: 1 / (np.sqrt(2) * np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle)))),
    lambda angle: 0.5 / np.cos(np.mod(angle, 2 * np.pi / 3) - np.pi / 3),
    lambda angle: 0.45 + 0.55 * (np.abs(np.mod(angle, 2 * np.pi / 5) - np.pi / 5) / (np.pi / 5)) ** 1.6,
    lambda angle: 0.78 + 0.22 * np.cos(6 * angle),
    lambda angle: 0.68 + 0.32 * np.cos(2 * angle),
)
# Per category: the share of the second color, 0 to 1, at coordinates in units of the object's radius.
_PATTERNS = (
    lambda x, y: 0.5 + 0.5 * np.sin(9 * x),
    lambda x, y: (np.sin(6.5 * x) * np.sin(6.5 * y) > 0).astype(np.float32),
    lambda x, y: (np.hypot(np.mod(x * 2.4, 1) - 0.5, np.mod(y * 2.4, 1) - 0.5) < 0.3).astype(np.float32),
    lambda x, y: np.clip(0.5 + 0.7 * y, 0, 1),
    lambda x, y: 0.5 + 0.5 * np.cos(11 * np.hypot(x, y)),
    lambda x, y: 0.5 + 0.5 * np.sin(5 * x + 3 * np.sin(4 * y)),
)


def _draw_color(rng: np.random.Generator, hue: float) -> np.ndarray:
    """Draw a saturated RGB color in [0, 1]; the hue has a period of 6."""
    rgb = np.clip(np.abs(np.mod(hue + np.array([0.0, 4.0, 2.0]), 6) - 3) - 1, 0, 1)
    return (rng.uniform(0.65, 1.0) * (1 - rng.uniform(0.6, 0.95) * (1 - rgb))).astype(np.float32)


class _Wave:
    """A random smooth motion: the sum of two sines of the frame number."""

    def __init__(self, rng: np.random.Generator, amplitude: float, fastest: float, slowest: float):
        share = rng.uniform(0.65, 0.95)
        self.amplitudes = amplitude * np.array([share, 1 - share])
        self.periods = rng.uniform(fastest, slowest, 2) * np.array([1.0, 0.6])
        self.phases = rng.uniform(0, 2 * np.pi, 2)

    def at(self, time: float) -> float:
        return float((self.amplitudes * np.sin(2 * np.pi * time / self.periods + self.phases)).sum())


class _Object:
    """A random object. Lengths, and the `extent` (width, height) of its frames, are in units of their shorter side."""

    def __init__(self, rng: np.random.Generator, extent: tuple[float, float]):
        leaves = rng.random() < 0.3  # swings out of the frame and back
        amplitudes = rng.uniform(0.1, 0.4, 2) * np.array(extent)
        if leaves:
            axis = int(rng.integers(2))
            amplitudes[axis] = rng.uniform(0.65, 0.9) * extent[axis]
        self.center = [side * rng.uniform(0.25, 0.75) for side in extent]
        self.category = int(rng.integers(len(CATEGORY_NAMES)))
        self.colors = [_draw_color(rng, rng.normal(self.category, 0.5)), _draw_color(rng, rng.uniform(0, 6))]
        self.radius = rng.uniform(0.14, 0.26)
        self.path = [_Wave(rng, amplitude, 45, 120) for amplitude in amplitudes]
        self.growth = _Wave(rng, 0.25, 30, 90)
        self.angle = rng.uniform(0, 2 * np.pi)
        self.spin = rng.uniform(-0.15, 0.15)
        self.stretch = _Wave(rng, 0.15, 15, 50)
        self.wobble = _Wave(rng, 0.08, 10, 30)

    def render(self, time: float, height: int, width: int) -> tuple[slice, slice, np.ndarray, np.ndarray]:
        """Return the rows, the columns, the colors (h, w, 3) and the coverage (h, w), in [0, 1], inside the frame."""
        unit = min(height, width)
        x0, y0 = ((center + wave.at(time)) * unit for center, wave in zip(self.center, self.path))
        radius = self.radius * unit * np.exp(self.growth.at(time))
        stretch = np.exp(self.stretch.at(time))
        reach = radius * max(stretch, 1 / stretch) * 1.15 + 2
        top, bottom = np.clip([int(y0 - reach), int(y0 + reach) + 2], 0, height).tolist()
        left, right = np.clip([int(x0 - reach), int(x0 + reach) + 2], 0, width).tolist()
        dy = (np.arange(top, bottom, dtype=np.float32) + 0.5 - y0)[:, None]
        dx = (np.arange(left, right, dtype=np.float32) + 0.5 - x0)[None]
        angle = self.angle + self.spin * time
        cos, sin = np.cos(angle), np.sin(angle)
        x = (cos * dx + sin * dy) / (radius * stretch)
        y = (cos * dy - sin * dx) / (radius / stretch)
        direction = np.arctan2(y, x)
        outline = _OUTLINES[self.category](direction) * (1 + self.wobble.at(time) * np.sin(3 * direction))
        coverage = np.clip((outline - np.hypot(x, y)) * radius / (2 * _EDGE) + 0.5, 0, 1)
        mix = _PATTERNS[self.category](x, y)[..., None]
        colors = (1 - mix) * self.colors[0] + mix * self.colors[1]
        return slice(top, bottom), slice(left, right), colors, coverage


def _draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw smooth noise of several scales in muted colors, (height, width, 3) in [0, 1]."""
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
    One video, rendered frame by frame, in any order. Iteration yields all frames.

    Args:
        seed, index: Decide the content of the video.
        size: (height, width) in pixels, each at least 32.
        length: Number of frames. A longer video begins like a shorter one.

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
        if seed < 0:
            raise ValueError(f"seed: expected at least 0, got {seed}")
        if length < 1:
            raise ValueError(f"length: expected at least 1 frame, got {length}")
        self.seed, self.index, self.size, self.length = seed, index, (height, width), length
        rng = np.random.default_rng([seed, index])
        extent = (width / min(size), height / min(size))
        count = int(rng.integers(2, 5))
        objects = [_Object(rng, extent) for _ in range(count)]
        if rng.random() < 0.25:
            original, twin = objects[0], _Object(rng, extent)
            twin.category, twin.colors = original.category, original.colors
            twin.radius = original.radius * rng.uniform(0.9, 1.1)
            objects[1] = twin
        self._objects = [objects[i] for i in rng.permutation(count)]
        self.labels = np.array([item.category for item in self._objects])
        self._background = _draw_background(rng, round(1.3 * height), round(1.3 * width))  # larger than a frame, to pan
        self._pan = (_Wave(rng, 0.12, 25, 70), _Wave(rng, 0.12, 25, 70))
        self._light = _Wave(rng, rng.uniform(0, 0.3), 12, 50)
        self._tint = rng.uniform(-0.08, 0.08, 3).astype(np.float32)
        self._shutter = rng.uniform(0.3, 0.9) if rng.random() < 0.4 else 0.0
        self._noise = rng.uniform(0.005, 0.03)

    def frame(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Render a frame; `time` is its index in [0, length).

        Returns:
            The image, uint8 (H, W, 3), and the visible pixels of each object in the middle of the exposure, bool
            (N, H, W). The masks are disjoint; that of a hidden object is empty.

        Raises:
            IndexError: if there is no such frame.
        """
        if not 0 <= time < self.length:
            raise IndexError(f"frame {time} of a video of {self.length} frames")
        # With motion blur, an image is the mean of three renders; the masks are those of the middle one.
        exposures = time + self._shutter * np.array([-0.5, 0, 0.5]) if self._shutter else [time]
        images, masks = zip(*map(self._render, exposures))
        image = np.mean(images, axis=0) * (np.exp(self._light.at(time)) + self._tint)
        noise = np.random.default_rng([self.seed, self.index, time]).standard_normal(image.shape, dtype=np.float32)
        return np.clip((image + self._noise * noise) * 255 + 0.5, 0, 255).astype(np.uint8), masks[len(masks) // 2]

    def _render(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.size
        room = [big - small for big, small in zip(self._background.shape, self.size)]
        top, left = (round((0.5 + pan.at(time) / 0.3) * space) for pan, space in zip(self._pan, room))
        top, left = np.clip([top, left], 0, room).tolist()
        image = self._background[top : top + height, left : left + width].copy()
        masks = np.zeros((len(self._objects), height, width), dtype=bool)
        for mask, item in zip(masks, self._objects):
            rows, columns, colors, coverage = item.render(time, height, width)
            image[rows, columns] += coverage[..., None] * (colors - image[rows, columns])
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
    Describe a video in the format of YouTube-VIS, given the masks of each frame from [`SyntheticVideo.frame`].

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


def _write_video(folder: Path, seed: int, size: tuple[int, int], length: int, index: int) -> tuple[dict, list[dict]]:
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
    Write a dataset in the format of YouTube-VIS: `JPEGImages/<video>/<frame>.jpg` and, last, `annotations.json`.

    Args:
        output: Folder to write.
        seed, size, length: See [`SyntheticVideo`].
        videos: Number of videos; their indices count from 0.
        workers: Number of processes that render.

    Returns:
        Path of the annotation file.

    Raises:
        ValueError: if a number is too small.
        FileExistsError: if the folder holds a dataset already, or an interrupted one made with other arguments.
    """
    if videos < 1:
        raise ValueError(f"videos: expected at least 1, got {videos}")
    SyntheticVideo(seed, 0, size, length)  # fail before any work if an argument is wrong
    annotation_file = Path(output, "annotations.json")
    if annotation_file.exists():
        raise FileExistsError(f"{annotation_file} exists: choose another folder, or remove this one")
    record = RunRecord(Path(output, ".rendering.json"), {"seed": seed, "size": list(size), "length": length})
    if not record.matches_or_is_new(["JPEGImages"]):
        record.write()
    write = partial(_write_video, Path(output, "JPEGImages"), seed, size, length)
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        annotated = pool.map(write, range(videos), chunksize=4) if pool else map(write, range(videos))
        bar = progress_bar(annotated, description="rendering", total=videos, unit="video", shown=True)
        annotated = list(bar)
    content = annotation_file_content(annotated, f"vita-hf synthetic videos, seed {seed}")
    write_atomically(annotation_file, json.dumps(content).encode())
    record.path.unlink()
    return annotation_file

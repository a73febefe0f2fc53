"""Synthetic videos with exact instance masks: textured shapes that move, deform, occlude one another, leave and return.

Everything about a video follows from `(seed, index)`: a frame can be rendered on its own, at any time and in any order,
and a video of 2,000 frames begins like one of 20. Six categories differ in outline, texture and, loosely, in one of
their two colours. Every fourth video or so holds two look-alikes that only their paths tell apart.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api
from tqdm.auto import tqdm

from ..files import write_atomically
from .categories import CATEGORIES

CATEGORY_NAMES = CATEGORIES["synthetic"]
"""Names of the categories, in the order of a model's labels; their ids in annotation files count from 1."""

_SHUTTER_SAMPLES = 3  # sub-frames that a frame with motion blur is the mean of
_EDGE = 0.75  # half width of an anti-aliased edge, in pixels


def _outline(category: int, angle: np.ndarray) -> np.ndarray:
    """Distance of a shape's outline from its centre in each direction, 1 at the farthest."""
    if category == 1:
        return 1 / (np.sqrt(2) * np.maximum(np.abs(np.cos(angle)), np.abs(np.sin(angle))))
    if category == 2:
        sector = np.mod(angle, 2 * np.pi / 3) - np.pi / 3
        return 0.5 / np.cos(sector)
    if category == 3:
        sector = np.abs(np.mod(angle, 2 * np.pi / 5) - np.pi / 5) / (np.pi / 5)  # 1 at a tip, 0 between two
        return 0.45 + 0.55 * sector**1.6
    if category == 4:
        return 0.78 + 0.22 * np.cos(6 * angle)
    if category == 5:
        return 0.68 + 0.32 * np.cos(2 * angle)
    return np.ones_like(angle)


def _pattern(category: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A category's texture at coordinates in units of its radius: how much of the second colour, 0 to 1."""
    if category == 0:
        return 0.5 + 0.5 * np.sin(9 * x)
    if category == 1:
        return (np.sin(6.5 * x) * np.sin(6.5 * y) > 0).astype(np.float32)
    if category == 2:
        return (np.hypot(np.mod(x * 2.4, 1) - 0.5, np.mod(y * 2.4, 1) - 0.5) < 0.3).astype(np.float32)
    if category == 3:
        return np.clip(0.5 + 0.7 * y, 0, 1)
    if category == 4:
        return 0.5 + 0.5 * np.cos(11 * np.hypot(x, y))
    return 0.5 + 0.5 * np.sin(5 * x + 3 * np.sin(4 * y))


def _colour(rng: np.random.Generator, hue: float) -> np.ndarray:
    """A saturated RGB colour in [0, 1]; hues go round from 0 to 6."""
    rgb = np.clip(np.abs(np.mod(hue + np.array([0.0, 4.0, 2.0]), 6) - 3) - 1, 0, 1)
    return (rng.uniform(0.65, 1.0) * (1 - rng.uniform(0.6, 0.95) * (1 - rgb))).astype(np.float32)


@dataclass(frozen=True)
class _Wave:
    """A smooth motion: a sum of two sines of the frame number."""

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
class _Thing:
    """One object; lengths are in units of the frame's shorter side."""

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

    def render(self, time: float, height: int, width: int) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
        """Rows, columns, colours (h, w, 3) and coverage (h, w) in [0, 1] where the object is, or None outside."""
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
        outline = _outline(self.category, direction) * (1 + self.wobble.at(time) * np.sin(3 * direction))
        coverage = np.clip((outline - np.hypot(x, y)) * radius / (2 * _EDGE) + 0.5, 0, 1)
        if not coverage.any():
            return None
        mix = _pattern(self.category, x, y)[..., None]
        colours = (1 - mix) * self.colours[0] + mix * self.colours[1]
        return slice(top, bottom), slice(left, right), colours, coverage


class SyntheticVideo:
    """
    One video, rendered frame by frame.

    Args:
        seed, index: What the video is drawn from.
        size: (height, width) in pixels, each at least 32.
        length: Number of frames.

    Attributes:
        labels: Int64 array (N,): each object's index into `CATEGORY_NAMES`, the farthest object first.

    Raises:
        ValueError: A size or length that can't work.
    """

    def __init__(self, seed: int, index: int, size: tuple[int, int] = (96, 128), length: int = 16):
        if min(size) < 32:
            raise ValueError(f"size: expected a height and a width of at least 32 pixels, got {size[0]}×{size[1]}")
        if length < 1:
            raise ValueError(f"length: expected at least 1 frame, got {length}")
        self.seed, self.index, self.size, self.length = seed, index, tuple(size), length
        rng = np.random.default_rng([seed, index])
        extent = (size[1] / min(size), size[0] / min(size))  # width and height in units of the shorter side
        count = int(rng.integers(2, 5))
        things = [self._draw_thing(rng, extent) for _ in range(count)]
        if rng.random() < 0.25:
            original, twin = things[0], self._draw_thing(rng, extent)
            things[1] = _Thing(
                original.category,
                original.colours,
                original.radius * rng.uniform(0.9, 1.1),
                *(twin.centre, twin.path, twin.growth, twin.angle, twin.spin, twin.stretch, twin.wobble),
            )
        self._things = [things[i] for i in rng.permutation(count)]
        self.labels = np.array([thing.category for thing in self._things])
        self._background = self._draw_background(rng)
        self._pan = (_Wave.draw(rng, 0.12, 25, 70), _Wave.draw(rng, 0.12, 25, 70))
        self._light = _Wave.draw(rng, rng.uniform(0, 0.3), 12, 50)
        self._tint = rng.uniform(-0.08, 0.08, 3).astype(np.float32)
        self._shutter = rng.uniform(0.3, 0.9) if rng.random() < 0.4 else 0.0
        self._noise = rng.uniform(0.005, 0.03)

    @staticmethod
    def _draw_thing(rng: np.random.Generator, extent: tuple[float, float]) -> _Thing:
        leaves = rng.random() < 0.3  # swings so far that it leaves the frame and comes back
        amplitudes = rng.uniform(0.1, 0.4, 2) * np.array(extent)
        if leaves:
            axis = int(rng.integers(2))
            amplitudes[axis] = rng.uniform(0.65, 0.9) * extent[axis]
        centre = tuple(side * rng.uniform(0.25, 0.75) for side in extent)
        category = int(rng.integers(len(CATEGORY_NAMES)))
        return _Thing(
            category=category,
            colours=(_colour(rng, rng.normal(category, 0.5)), _colour(rng, rng.uniform(0, 6))),
            radius=rng.uniform(0.14, 0.26),
            centre=centre,
            path=tuple(_Wave.draw(rng, amplitude, 45, 120) for amplitude in amplitudes),
            growth=_Wave.draw(rng, 0.25, 30, 90),
            angle=rng.uniform(0, 2 * np.pi),
            spin=rng.uniform(-0.15, 0.15),
            stretch=_Wave.draw(rng, 0.15, 15, 50),
            wobble=_Wave.draw(rng, 0.08, 10, 30),
        )

    def _draw_background(self, rng: np.random.Generator) -> np.ndarray:
        """Smooth noise of several scales in muted colours, larger than a frame for panning; (H', W', 3) in [0, 1]."""
        height, width = (round(1.3 * side) for side in self.size)
        base = rng.uniform(0.25, 0.6, 3).astype(np.float32)
        picture = np.broadcast_to(base, (height, width, 3)).copy()
        for cells, strength in ((3, 0.22), (7, 0.14), (20, 0.10)):
            shape = (max(2, round(cells * height / min(height, width))), max(2, round(cells * width / height)))
            luminance = rng.uniform(-1, 1, shape)
            for channel in range(3):
                coarse = (0.7 * luminance + 0.3 * rng.uniform(-1, 1, shape)).astype(np.float32)
                fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
                picture[..., channel] += strength * np.asarray(fine)
        return np.clip(picture, 0, 1)

    def frame(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Render frame `time` in [0, length).

        Returns:
            The image, uint8 (H, W, 3), and each object's visible pixels, bool (N, H, W): disjoint, at the middle of the
            exposure; empty where it is outside the frame or hidden.

        Raises:
            IndexError: There is no such frame.
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
        masks = np.zeros((len(self._things), height, width), dtype=bool)
        for mask, thing in zip(masks, self._things):
            drawn = thing.render(time, height, width)
            if drawn is None:
                continue
            rows, columns, colours, coverage = drawn
            image[rows, columns] += coverage[..., None] * (colours - image[rows, columns])
            inside = coverage > 0.5
            masks[:, rows, columns] &= ~inside  # what is nearer hides what is farther
            mask[rows, columns] = inside
        return image, masks

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.frame(time) for time in range(self.length))


def annotate(
    video: SyntheticVideo, video_id: int, file_names: Sequence[str], masks: Iterable[np.ndarray]
) -> tuple[dict, list[dict]]:
    """
    A video as YouTube-VIS annotation files have it.

    Args:
        video: of N objects.
        video_id: for the entries.
        file_names: of its frames.
        masks: of each frame, bool (N, H, W), as [`SyntheticVideo.frame`] gives them.

    Returns:
        The `videos` entry, and the `annotations` of the objects that are seen at least once, without ids.
    """

    def encode(mask: np.ndarray) -> dict:
        rle = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
        return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}

    tracks: list[list[dict | None]] = [[] for _ in video.labels]
    for of_frame in masks:
        for track, mask in zip(tracks, of_frame):
            track.append(encode(mask) if mask.any() else None)
    entry = {
        "id": video_id,
        "height": video.size[0],
        "width": video.size[1],
        "length": video.length,
        "file_names": list(file_names),
    }
    annotations = [
        {
            "video_id": video_id,
            "category_id": int(label) + 1,
            "iscrowd": 0,
            "segmentations": track,
            "bboxes": [rle and mask_api.toBbox(rle).tolist() for rle in track],
            "areas": [rle and int(mask_api.area(rle)) for rle in track],
        }
        for label, track in zip(video.labels, tracks)
        if any(track)
    ]
    return entry, annotations


def annotation_file_content(annotated: Sequence[tuple[dict, list[dict]]], description: str) -> dict:
    """Put together what [`annotate`] returned for each video: the content of an annotation file."""
    annotations = [annotation for _, found in annotated for annotation in found]
    return {
        "info": {"description": description},
        "videos": [entry for entry, _ in annotated],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CATEGORY_NAMES)],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }


def _write_video(task: tuple) -> tuple[dict, list[dict]]:
    """Render one video's frames into its folder; returns what [`annotate`] does."""
    folder, seed, index, size, length = task
    video = SyntheticVideo(seed, index, size, length)
    (folder / f"{index:05d}").mkdir(parents=True, exist_ok=True)
    names = [f"{index:05d}/{time:05d}.jpg" for time in range(length)]
    masks = []
    for name, (image, of_frame) in zip(names, video):
        Image.fromarray(image).save(folder / name, quality=92)
        masks.append(of_frame)
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
    Write a set in YouTube-VIS's form: `annotations.json` and `JPEGImages/<video>/<frame>.jpg`.

    Args:
        output: Folder to write; the annotation file is written last, so that its presence means that the set is whole.
        seed, videos, size, length: Which videos, see [`SyntheticVideo`]; they are numbered 0 to `videos` − 1.
        workers: Processes that render.

    Returns:
        Path of the annotation file.

    Raises:
        ValueError: A number that can't work.
        FileExistsError: The folder holds a set already.
    """
    output = Path(output)
    if videos < 1:
        raise ValueError(f"videos: expected at least 1, got {videos}")
    SyntheticVideo(seed, 0, size, length)  # complain before any work
    annotation_file = output / "annotations.json"
    if annotation_file.exists():
        raise FileExistsError(f"{annotation_file} exists: choose another folder, or remove this one")
    tasks = [(output / "JPEGImages", seed, index, tuple(size), length) for index in range(videos)]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            written = list(
                tqdm(pool.map(_write_video, tasks, chunksize=4), total=videos, desc="rendering", unit="video")
            )
    else:
        written = [_write_video(task) for task in tqdm(tasks, desc="rendering", unit="video")]
    content = annotation_file_content(written, f"vita-hf synthetic videos, seed {seed}")
    write_atomically(annotation_file, json.dumps(content).encode())
    return annotation_file


__all__ = ["CATEGORY_NAMES", "SyntheticVideo", "annotate", "annotation_file_content", "write_synthetic_dataset"]

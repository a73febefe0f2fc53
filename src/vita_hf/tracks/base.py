"""Tracks of one video: scores, labels and masks, without export and drawing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor
from typing_extensions import Self

from ..ops.rle import decode, decode_masks, encode_masks, shorten
from ..text import counted


@dataclass(kw_only=True, eq=False)
class Tracks:
    """
    Tracks of one video; [`~vita_hf.VideoInstances`] adds files and pictures, and describes the attributes.

    Drawing needs no more than this class.
    """

    scores: Tensor
    labels: Tensor
    masks: Tensor | list[list[dict]] = field(repr=False)
    query_indices: Tensor
    size: tuple[int, int]
    num_frames: int
    track_ids: Tensor = None  # ty: ignore[invalid-assignment] - set in __post_init__
    id2label: Mapping[int, str] | None = field(default=None, repr=False)
    frame_indices: Sequence[int] | None = field(default=None, repr=False)
    fps: float | None = None
    frame_times: Sequence[float] | None = field(default=None, repr=False)

    def __post_init__(self):
        count = len(self.scores)
        if self.track_ids is None:
            self.track_ids = torch.arange(count, device="cpu")
        for name in ("scores", "labels", "query_indices", "track_ids"):
            shape = tuple(getattr(self, name).shape)
            if shape != (count,):
                raise ValueError(f"{name} must have the shape ({count},) like scores, got {shape}")
        if isinstance(self.masks, Tensor):
            got, expected = tuple(self.masks.shape), (count, self.num_frames, *self.size)
        else:
            got, expected = [len(track) for track in self.masks], [self.num_frames] * count
        if got != expected:
            what = "shape" if isinstance(self.masks, Tensor) else "frames per track"
            raise ValueError(f"masks: expected {what} {shorten(expected)}, got {shorten(got)}")
        if self.frame_indices is not None:
            indices = np.asarray(self.frame_indices, dtype=np.int64)
            if len(indices) != self.num_frames:
                raise ValueError(f"frame_indices: expected {counted(self.num_frames, 'frame')}, got {len(indices)}")
            if (indices < 0).any() or (np.diff(indices) <= 0).any():
                raise ValueError("frame_indices must be at least 0 and in increasing order")
        if self.frame_times is not None:
            times = np.asarray(self.frame_times, dtype=np.float64)
            if len(times) != self.num_frames:
                raise ValueError(f"frame_times: expected {counted(self.num_frames, 'frame')}, got {len(times)}")
            if not np.isfinite(times).all() or (times < 0).any() or (np.diff(times) <= 0).any():
                raise ValueError("frame_times must be finite, at least 0 and in increasing order")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Any) -> Self:
        if not isinstance(index, int | slice):
            index = torch.as_tensor(index, device="cpu")
            if not index.numel():  # an empty list has no dtype of its own
                index = index.long()
        rows = torch.arange(len(self), device="cpu")[index].reshape(-1)
        return replace(
            self,
            scores=self.scores[rows],
            labels=self.labels[rows],
            masks=self.masks[rows] if isinstance(self.masks, Tensor) else [self.masks[row] for row in rows],
            query_indices=self.query_indices[rows],
            track_ids=self.track_ids[rows],
        )

    def __iter__(self) -> Iterator[Self]:
        return (self[row] for row in range(len(self)))

    @property
    def label_names(self) -> list[str]:
        """Class of each track: its name in `id2label`, or its index as a string."""
        names = self.id2label or {}
        return [names.get(label, str(label)) for label in self.labels.tolist()]

    @property
    def frame_numbers(self) -> list[int]:
        """Index in the video of each of the T frames."""
        return [int(index) for index in (range(self.num_frames) if self.frame_indices is None else self.frame_indices)]

    @property
    def timestamps(self) -> list[float] | None:
        """
        Seconds from the start of the video to each of the T frames: `frame_times`, or computed from `fps`; None if
        both are unknown.
        """
        if self.frame_times is not None:
            return [float(time) for time in self.frame_times]
        return [number / self.fps for number in self.frame_numbers] if self.fps else None

    @property
    def boxes(self) -> Tensor:
        """
        Bounding box of each track in each frame.

        Returns:
            Float32 tensor (k, T, 4): x0, y0, x1, y1 in pixels, NaN where the track has no pixel. Boxes enclose whole
            pixels, as in COCO (x1 = x + width): a track with a single pixel in column 3, row 2 has the box 3, 2, 4, 3.
        """
        tracks: Any = self.to_rle().masks
        _decode_areas(tracks, self.size)  # checks them, unlike pycocotools
        rles = [{"size": list(self.size), "counts": rle["counts"]} for track in tracks for rle in track]
        boxes = torch.from_numpy(np.asarray(mask_api.toBbox(rles), dtype=np.float32).reshape(-1, 4))
        absent = boxes[:, 2] == 0
        boxes[:, 2:] += boxes[:, :2]
        boxes[absent] = torch.nan
        return boxes.reshape(len(self), self.num_frames, 4)

    @property
    def areas(self) -> Tensor:
        """Number of pixels of each track in each frame: int64 tensor (k, T)."""
        if isinstance(self.masks, Tensor):
            return self.masks.flatten(2).sum(2)
        return _decode_areas(self.masks, self.size).reshape(len(self), self.num_frames)

    def masks_at(self, frame: int) -> Tensor:
        """
        Return the masks of one frame: bool tensor (k, h, w).

        Args:
            frame: 0 … T-1, or negative to count from the end.

        Raises:
            IndexError: if there is no such frame.
        """
        if not -self.num_frames <= frame < self.num_frames:
            raise IndexError(f"frame {frame} is out of range: the video has {counted(self.num_frames, 'frame')}")
        if isinstance(self.masks, Tensor):
            return self.masks[:, frame].bool()
        return _decode_masks([track[frame] for track in self.masks], self.size)

    def label_map(self, frame: int) -> Tensor:
        """
        Return one frame as a map of track ids. Where tracks overlap, the best score wins.

        Args:
            frame: 0 … T-1, or negative to count from the end.

        Returns:
            Int64 tensor (h, w): a track id, or -1 where there is no track. Of tracks with equal scores, the first wins.
        """
        label_map = torch.full(self.size, -1, dtype=torch.int64, device="cpu")
        masks = self.masks_at(frame)
        for row in self.scores.argsort(descending=True, stable=True).flip(0):
            label_map[masks[row]] = self.track_ids[row]
        return label_map

    def to_dense(self) -> Self:
        """Return the same tracks with `masks` as a bool tensor (k, T, h, w)."""
        if isinstance(self.masks, Tensor):
            return self
        tracks = [_decode_masks(track, self.size) for track in self.masks]
        empty = torch.zeros((0, self.num_frames, *self.size), dtype=torch.bool, device="cpu")
        return replace(self, masks=torch.stack(tracks) if tracks else empty)

    def to_rle(self) -> Self:
        """Return the same tracks with `masks` as compressed RLE, which takes far less memory."""
        if not isinstance(self.masks, Tensor):
            return self
        return replace(self, masks=[encode_masks(track) for track in self.masks])


def _decode_areas(tracks: list[list[dict]], size: tuple[int, int]) -> Tensor:
    """Count the pixels of all RLEs, and check them: int64 tensor (k * T,)."""
    masks = [rle["counts"] for track in tracks for rle in track]
    return (
        torch.from_numpy(decode(masks, math.prod(size))[2])
        if masks
        else torch.zeros(0, dtype=torch.int64, device="cpu")
    )


def _decode_masks(rles: list[dict], size: tuple[int, int]) -> Tensor:
    """Decode n RLEs to a bool tensor (n, h, w)."""
    if not rles:
        return torch.zeros((0, *size), dtype=torch.bool, device="cpu")
    return torch.from_numpy(decode_masks([rle["counts"] for rle in rles], *size)).contiguous()

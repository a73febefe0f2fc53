"""What a video's segmentation is handed over as."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pycocotools import mask as mask_api

from ..files import write_atomically

if TYPE_CHECKING:
    import supervision
    from PIL import Image

_FORMAT = "vita_hf.VideoInstances/1"


def encode_masks(masks: torch.Tensor) -> list[dict]:
    """
    Encode masks as COCO's compressed run lengths.

    Args:
        masks: Bool tensor (n, h, w), on any device.

    Returns:
        n dicts `{"size": [h, w], "counts": str}`, also for masks without a pixel.
    """
    # pycocotools wants (h, w, n) in Fortran order: the transpose of a contiguous (n, w, h).
    columns = masks.transpose(1, 2).contiguous().view(torch.uint8).cpu().numpy()
    rles = mask_api.encode(columns.transpose(2, 1, 0))
    return [{"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")} for rle in rles]


@dataclass(kw_only=True, eq=False)
class VideoInstances:
    """
    The instances found in one video: `k` tracks over `T` frames of size (h, w), everything on the CPU.

    Indexing with an int, a slice, a boolean mask or a list or tensor of indices gives another `VideoInstances`;
    iterating gives one with a single track at a time. `track_ids` stay with their tracks.

    Attributes:
        scores: Float tensor (k,).
        labels: Int64 tensor (k,): 0-based class indices.
        masks: Bool tensor (k, T, h, w); or k lists of T run lengths `{"size": [h, w], "counts": str}` as pycocotools
            reads them, one for every frame, also where the track has no pixel.
        query_indices: Int64 tensor (k,): the video query behind each track. A query may be behind several tracks
            with different labels.
        size: (h, w).
        num_frames: T.
        track_ids: Int64 tensor (k,); 0 … k-1 by default.
        id2label: Optional names of the classes.
        frame_indices: Which of the video's frames the T frames are, in order, if not simply its first T; 0-based.
        fps: Frames per second of the video itself, before any were left out; None if unknown.

    Raises:
        ValueError: The fields don't fit together.
    """

    scores: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | list[list[dict]] = field(repr=False)
    query_indices: torch.Tensor
    size: tuple[int, int]
    num_frames: int
    track_ids: torch.Tensor | None = None
    id2label: Mapping[int, str] | None = field(default=None, repr=False)
    frame_indices: Sequence[int] | None = field(default=None, repr=False)
    fps: float | None = None

    def __post_init__(self):
        count = len(self.scores)
        if self.track_ids is None:
            self.track_ids = torch.arange(count)
        for name in ("scores", "labels", "query_indices", "track_ids"):
            shape = tuple(getattr(self, name).shape)
            if shape != (count,):
                raise ValueError(f"{name} must have the shape ({count},) like scores, got {shape}")
        if isinstance(self.masks, torch.Tensor):
            got, expected = tuple(self.masks.shape), (count, self.num_frames, *self.size)
        else:
            got, expected = [len(track) for track in self.masks], [self.num_frames] * count
        if got != expected:
            what = "shape" if isinstance(self.masks, torch.Tensor) else "frames a track"
            raise ValueError(f"masks: expected {what} {expected}, got {got}")
        if self.frame_indices is not None:
            indices = np.asarray(self.frame_indices, dtype=np.int64)
            if len(indices) != self.num_frames:
                raise ValueError(f"frame_indices: expected {self.num_frames} frames, got {len(indices)}")
            if (indices < 0).any() or (np.diff(indices) <= 0).any():
                raise ValueError("frame_indices must be at least 0 and in increasing order")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index) -> "VideoInstances":
        if not isinstance(index, int | slice):
            index = torch.as_tensor(index).cpu()
            if not index.numel():  # an empty list has no type of its own
                index = index.long()
        rows = torch.arange(len(self))[index].reshape(-1)
        return replace(
            self,
            scores=self.scores[rows],
            labels=self.labels[rows],
            masks=self.masks[rows] if isinstance(self.masks, torch.Tensor) else [self.masks[row] for row in rows],
            query_indices=self.query_indices[rows],
            track_ids=self.track_ids[rows],
        )

    def filter(
        self, min_score: float | None = None, labels: int | str | Sequence[int | str] | None = None
    ) -> "VideoInstances":
        """
        Keep the tracks that score at least `min_score` and whose class is one of `labels` (indices or names).

        Raises:
            ValueError: A name is not in `id2label`.
        """
        keep = torch.ones(len(self), dtype=torch.bool)
        if min_score is not None:
            keep &= self.scores >= min_score
        if labels is not None:
            labels = [labels] if isinstance(labels, int | str) else list(labels)
            indices = [index for label in labels for index in self._label_indices(label)]
            keep &= torch.isin(self.labels, torch.as_tensor(indices, dtype=torch.int64))
        return self[keep]

    def _label_indices(self, label: int | str) -> list[int]:
        if not isinstance(label, str):
            return [label]
        names = self.id2label or {}
        indices = [index for index, name in names.items() if name == label]
        if not indices:
            raise ValueError(f"unknown label {label!r}: the classes are {sorted(set(names.values()))}")
        return indices

    @property
    def label_names(self) -> list[str]:
        """Each track's class as a name from `id2label`, or as its number where that has none."""
        names = self.id2label or {}
        return [names.get(label, str(label)) for label in self.labels.tolist()]

    @property
    def timestamps(self) -> list[float] | None:
        """Seconds from the start of the video to each of the T frames; None if `fps` is unknown."""
        if not self.fps:
            return None
        indices = range(self.num_frames) if self.frame_indices is None else self.frame_indices
        return [index / self.fps for index in indices]

    @property
    def boxes(self) -> torch.Tensor:
        """
        Each track's bounding box in each frame.

        Returns:
            Float32 tensor (k, T, 4): x0, y0, x1, y1 in pixels, NaN where the track has no pixel. The edges are those
            of the pixels, as in COCO (x1 = x + width): a track of the one pixel at column 3, row 2 has 3, 2, 4, 3.
        """
        rles = [rle for track in self.to_rle().masks for rle in track]
        boxes = torch.from_numpy(np.asarray(mask_api.toBbox(rles), dtype=np.float32).reshape(-1, 4))
        absent = boxes[:, 2] == 0
        boxes[:, 2:] += boxes[:, :2]
        boxes[absent] = torch.nan
        return boxes.reshape(len(self), self.num_frames, 4)

    @property
    def areas(self) -> torch.Tensor:
        """Each track's number of pixels in each frame: int64 tensor (k, T)."""
        if isinstance(self.masks, torch.Tensor):
            return self.masks.flatten(2).sum(2)
        # One at a time: pycocotools 2.0.11 refuses more than 255 masks at once under NumPy 2.
        areas = [int(mask_api.area(rle)) for track in self.masks for rle in track]
        return torch.tensor(areas, dtype=torch.int64).reshape(len(self), self.num_frames)

    def summary(self) -> list[dict[str, Any]]:
        """
        List the tracks for people.

        Returns:
            One dict a track: `track_id`, `label` (its name), `score`, `first_frame` and `last_frame` (numbers of the
            video's frames, None if the track has no pixel in any), and `num_frames`, in how many it has one.
        """
        numbers = np.asarray(range(self.num_frames) if self.frame_indices is None else self.frame_indices)
        rows = []
        for track, (areas, name) in enumerate(zip(self.areas.numpy(), self.label_names)):
            seen = numbers[areas > 0].tolist()
            rows.append(
                {
                    "track_id": int(self.track_ids[track]),
                    "label": name,
                    "score": float(self.scores[track]),
                    "first_frame": seen[0] if seen else None,
                    "last_frame": seen[-1] if seen else None,
                    "num_frames": len(seen),
                }
            )
        return rows

    def masks_at(self, frame: int) -> torch.Tensor:
        """
        Give one frame's masks, whatever form `masks` has: bool tensor (k, h, w).

        Args:
            frame: 0 … T-1, or negative to count from the end.

        Raises:
            IndexError: There is no such frame.
        """
        if not -self.num_frames <= frame < self.num_frames:
            raise IndexError(f"frame {frame} is out of range: there are {self.num_frames} frames")
        if isinstance(self.masks, torch.Tensor):
            return self.masks[:, frame].bool()
        return _decode_masks([track[frame] for track in self.masks], self.size)

    def label_map(self, frame: int) -> torch.Tensor:
        """
        Give one frame as a map of track ids: one id per pixel, that of the best-scored track there.

        Args:
            frame: As for `masks_at`.

        Returns:
            Int64 tensor (h, w): a track id, or -1 where there is no track (ids start at 0). Of tracks with equal
            scores, the first one is on top.
        """
        label_map = torch.full(self.size, -1, dtype=torch.int64)
        masks = self.masks_at(frame)
        for row in self.scores.argsort(descending=True, stable=True).flip(0):
            label_map[masks[row]] = self.track_ids[row]
        return label_map

    def to_dense(self) -> "VideoInstances":
        """Give the same tracks with `masks` as a bool tensor (k, T, h, w)."""
        if isinstance(self.masks, torch.Tensor):
            return self
        tracks = [_decode_masks(track, self.size) for track in self.masks]
        empty = torch.zeros((0, self.num_frames, *self.size), dtype=torch.bool)
        return replace(self, masks=torch.stack(tracks) if tracks else empty)

    def to_rle(self) -> "VideoInstances":
        """Give the same tracks with `masks` as run lengths, which take far less memory."""
        if not isinstance(self.masks, torch.Tensor):
            return self
        return replace(self, masks=[encode_masks(track) for track in self.masks])

    def to_ytvis(
        self, video_id: int, category_ids: Sequence[int] | Mapping[int, int] | None = None
    ) -> list[dict[str, object]]:
        """
        Write the tracks as entries of a YouTube-VIS / OVIS `results.json`.

        Args:
            video_id: The video's id in the annotation file.
            category_ids: The category id of each class index; `label + 1` by default, as in the official data sets.

        Returns:
            One JSON-ready dict a track: `{"video_id", "category_id", "score", "segmentations"}`. `segmentations` has
            a compressed run length for every frame, also where the track has no pixel: what the official evaluation
            reads and the original implementation writes.
        """
        tracks = zip(self.labels.tolist(), self.scores.tolist(), self.to_rle().masks)
        return [
            {
                "video_id": video_id,
                "category_id": label + 1 if category_ids is None else category_ids[label],
                "score": score,
                "segmentations": rles,
            }
            for label, score, rles in tracks
        ]

    def to_supervision(self, frame: int) -> "supervision.Detections":
        """
        Hand one frame over to `supervision`, whose annotators draw and whose tools count, crop and compare.

        Args:
            frame: As for `masks_at`.

        Returns:
            `sv.Detections` of the n tracks that have a pixel in this frame: `xyxy` float32 (n, 4) as in `boxes`,
            `mask` bool (n, h, w), `confidence` float32 (n,), `class_id` and `tracker_id` int64 (n,), and
            `data["class_name"]`.

        Raises:
            ImportError: The package is not installed.
            IndexError: There is no such frame.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs the supervision package: pip install supervision") from error
        masks = self.masks_at(frame)
        rows = masks.flatten(1).any(1).nonzero()[:, 0]
        seen = replace(self[rows], masks=masks[rows, None], num_frames=1, frame_indices=None)
        return supervision.Detections(
            xyxy=seen.boxes[:, 0].numpy(),
            mask=masks[rows].numpy(),
            confidence=seen.scores.float().numpy(),
            class_id=seen.labels.numpy(),
            tracker_id=seen.track_ids.numpy(),
            data={"class_name": np.array(seen.label_names, dtype=str)},
        )

    def to_json(self, path: str | os.PathLike | None = None) -> str | None:
        """
        Write everything there is to know as JSON, masks as run lengths; `from_json` reads it back without loss.

        The tracks are listed under "tracks": "track_id", "label", "label_name", "score", "query_index" and
        "segmentations", one run length `{"size": [h, w], "counts": str}` a frame as pycocotools reads them.

        Args:
            path: The file to write, whole or not at all; with None, the text is returned.

        Raises:
            ValueError: A score is infinite or not a number.
        """
        if not self.scores.isfinite().all():
            raise ValueError(f"scores must be finite, got {self.scores.tolist()}")
        names = ("track_id", "label", "label_name", "score", "query_index", "segmentations")
        columns = (self.track_ids, self.labels, self.label_names, self.scores, self.query_indices, self.to_rle().masks)
        rows = zip(*(column.tolist() if isinstance(column, torch.Tensor) else column for column in columns))
        content = {
            "format": _FORMAT,
            "size": list(self.size),
            "num_frames": self.num_frames,
            "fps": self.fps,
            "frame_indices": None if self.frame_indices is None else [int(index) for index in self.frame_indices],
            "id2label": None if self.id2label is None else {str(key): name for key, name in self.id2label.items()},
            "tracks": [dict(zip(names, row)) for row in rows],
        }
        text = json.dumps(content)
        if path is None:
            return text
        write_atomically(path, text.encode())
        return None

    @classmethod
    def from_json(cls, source: str | os.PathLike) -> "VideoInstances":
        """
        Read what `to_json` wrote; scores become float32, masks run lengths.

        Args:
            source: A path, or the text itself.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not such a text; says why.
        """
        if isinstance(source, str) and source.lstrip()[:1] == "{":
            where, text = "text", source
        else:
            where, text = str(source), Path(source).read_text()
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{where} is not JSON: {error}") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(
                f'{where}: expected an object with "format": "{_FORMAT}", as VideoInstances.to_json writes'
            )
        try:
            return cls._from_content(content)
        except KeyError as error:
            raise ValueError(f"{where}: {error} is missing") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error

    @classmethod
    def _from_content(cls, content: dict[str, Any]) -> "VideoInstances":
        tracks, size, id2label = content["tracks"], tuple(content["size"]), content["id2label"]
        for track in tracks:
            sizes = {tuple(rle["size"]) for rle in track["segmentations"]}
            if sizes - {size}:
                raise ValueError(
                    f"track {track['track_id']}: expected masks of size {size}, got {sorted(sizes - {size})}"
                )

        def column(name: str, dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor([track[name] for track in tracks], dtype=dtype)

        return cls(
            scores=column("score", torch.float32),
            labels=column("label", torch.int64),
            masks=[track["segmentations"] for track in tracks],
            query_indices=column("query_index", torch.int64),
            size=size,
            num_frames=content["num_frames"],
            track_ids=column("track_id", torch.int64),
            id2label=None if id2label is None else {int(key): name for key, name in id2label.items()},
            frame_indices=content["frame_indices"],
            fps=content["fps"],
        )

    def render(self, video, path: str | os.PathLike, **options) -> Path:
        """Draw the tracks over the video's frames and write them; see [`vita_hf.tracks.drawing.render`]."""
        from .drawing import render  # imports this module

        return render(self, video, path, **options)

    def plot(self, video, path: str | os.PathLike | None = None, **options) -> "Image.Image":
        """Give one picture of the whole video; see [`vita_hf.tracks.contact_sheet.plot`]."""
        from .contact_sheet import plot  # imports this module

        return plot(self, video, path, **options)


def _decode_masks(rles: list[dict], size: tuple[int, int]) -> torch.Tensor:
    """Decode n run lengths: bool tensor (n, h, w)."""
    if not rles:
        return torch.zeros((0, *size), dtype=torch.bool)
    return torch.from_numpy(mask_api.decode(rles)).permute(2, 0, 1).contiguous().view(torch.bool)


__all__ = ["VideoInstances", "encode_masks"]

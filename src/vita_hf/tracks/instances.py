"""`VideoInstances`: the tracks of one video, and their exports (YouTube-VIS, JSON, supervision)."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..files import write_atomically
from .base import Tracks
from .contact_sheet import plot
from .drawing import render
from .json_reader import FORMAT, check_masks, read_content
from .labels import label_indices
from .table import html_table

if TYPE_CHECKING:
    import supervision


@dataclass(kw_only=True, eq=False)
class VideoInstances(Tracks):
    """
    The instances found in one video: `k` tracks over `T` frames of size (h, w), everything on the CPU.

    Index it with an int, a slice, a boolean mask, or a list or tensor of indices to select tracks. Iterate over it to
    get one track at a time. Tracks keep their `track_ids`.

    Attributes:
        scores: Float tensor (k,).
        labels: Int64 tensor (k,): 0-based class indices.
        masks: Bool tensor (k, T, h, w); or k lists of T compressed RLEs `{"size": [h, w], "counts": str}` as
            pycocotools reads them, also for frames in which the track has no pixel.
        query_indices: Int64 tensor (k,): the video query behind each track. One query may give several tracks with
            different labels.
        size: (h, w).
        num_frames: T.
        track_ids: Int64 tensor (k,); by default 0 … k-1.
        id2label: Names of the classes.
        frame_indices: Index in the video of each of the T frames, in increasing order; by default the first T.
        fps: Average frame rate of the video itself, before any frames were left out; None if unknown.
        frame_times: When each of the T frames is shown, in seconds from the start of the video, in increasing order;
            by default they follow from `fps`. Videos of phones and webcams have no constant rate.

    Raises:
        ValueError: if shapes or lengths are inconsistent, or `frame_indices` or `frame_times` are not increasing.

    Example:
    ```python
    >>> import torch
    >>> from vita_hf import VideoInstances

    >>> masks = torch.zeros(2, 3, 4, 6, dtype=torch.bool)  # two tracks in three frames of 4×6 pixels
    >>> masks[0, :2, 1:3, 1:3] = masks[1, 2, 0, :5] = True
    >>> result = VideoInstances(
    ...     scores=torch.tensor([0.75, 0.5]),
    ...     labels=torch.tensor([1, 0]),
    ...     masks=masks,
    ...     query_indices=torch.tensor([3, 8]),
    ...     size=(4, 6),
    ...     num_frames=3,
    ...     id2label={0: "cat", 1: "dog"},
    ... )
    >>> result.areas.tolist()
    [[4, 4, 0], [0, 0, 5]]
    >>> result.filter(labels="dog").summary()
    [{'track_id': 0, 'label': 'dog', 'score': 0.75, 'first_frame': 0, 'last_frame': 1, 'num_frames': 2}]
    >>> VideoInstances.from_json(result.to_json()).boxes[1, 2].tolist()
    [0.0, 0.0, 5.0, 1.0]

    ```
    """

    render = render
    plot = plot
    _repr_html_ = html_table  # what a notebook shows

    def filter(
        self, min_score: float | None = None, labels: int | str | Sequence[int | str] | None = None
    ) -> "VideoInstances":
        """
        Select tracks by score and class.

        The result equals that of a new run with this `threshold`: segment with a low one, and choose afterwards.

        Args:
            min_score: Minimum score.
            labels: One or several classes, as indices or names.

        Raises:
            ValueError: if a class is not in `id2label`.
        """
        keep = torch.ones(len(self), dtype=torch.bool, device="cpu")
        if min_score is not None:
            keep &= self.scores >= min_score
        if labels is not None:
            indices = label_indices(labels, self.id2label)
            keep &= torch.isin(self.labels, torch.tensor(indices, dtype=torch.int64, device="cpu"))
        return self[keep]

    def summary(self) -> list[dict[str, Any]]:
        """
        Summarize the tracks in human-readable form.

        Returns:
            One dict per track: `track_id`, `label` (its name), `score`, `first_frame` and `last_frame` (indices in the
            video; None if the track has no pixel in any frame), and `num_frames`, the number of frames in which it has
            one.
        """
        numbers, rows = np.array(self.frame_numbers), []
        for track, (areas, name) in enumerate(zip(self.areas.numpy(), self.label_names)):
            visible = numbers[areas > 0].tolist()
            rows.append(
                {
                    "track_id": int(self.track_ids[track]),
                    "label": name,
                    "score": float(self.scores[track]),
                    "first_frame": visible[0] if visible else None,
                    "last_frame": visible[-1] if visible else None,
                    "num_frames": len(visible),
                }
            )
        return rows

    def to_ytvis(
        self, video_id: int, category_ids: Sequence[int] | Mapping[int, int] | None = None
    ) -> list[dict[str, Any]]:
        """
        Convert the tracks to entries of a YouTube-VIS or OVIS `results.json`.

        Args:
            video_id: Id of the video in the annotation file.
            category_ids: Category id of each class index; by default `label + 1`, as in the official datasets.

        Returns:
            One JSON-ready dict per track, with a compressed RLE for every frame, even where the track has no pixels, as
            the official evaluation expects.
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
        Convert one frame for `supervision`, whose tools draw, count, crop and compare.

        Args:
            frame: 0 … T-1, or negative to count from the end.

        Returns:
            `sv.Detections` of the n tracks with a pixel in this frame: `xyxy` float32 (n, 4) as in `boxes`, `mask` bool
            (n, h, w), `confidence` float32 (n,), `class_id` and `tracker_id` int64 (n,), and `data["class_name"]`.

        Raises:
            ImportError: if the package is not installed.
            IndexError: if there is no such frame.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision needs the supervision package: pip install supervision") from error
        masks = self.masks_at(frame)
        rows = masks.flatten(1).any(1).nonzero()[:, 0]
        visible = replace(self[rows], masks=masks[rows, None], num_frames=1, frame_indices=None, frame_times=None)
        return supervision.Detections(
            xyxy=visible.boxes[:, 0].numpy(),
            mask=masks[rows].numpy(),
            confidence=visible.scores.float().numpy(),
            class_id=visible.labels.numpy(),
            tracker_id=visible.track_ids.numpy(),
            data={"class_name": np.array(visible.label_names, dtype=str)},
        )

    def to_json(self, path: str | os.PathLike | None = None) -> str | None:
        """
        Write everything as JSON, with masks as compressed RLE. `from_json` reads it back without loss.

        The entries of "tracks" have "track_id", "label", "label_name", "score", "query_index" and "segmentations", one
        RLE per frame as pycocotools reads it.

        Args:
            path: The file to write; by default the text is returned.

        Raises:
            ValueError: if a score is not finite.
        """
        if not self.scores.isfinite().all():
            raise ValueError(f"scores must be finite, got {self.scores.tolist()}")
        names = ("track_id", "label", "label_name", "score", "query_index", "segmentations")
        columns = (self.track_ids, self.labels, self.label_names, self.scores, self.query_indices, self.to_rle().masks)
        rows = zip(*(column.tolist() if isinstance(column, torch.Tensor) else column for column in columns))
        content = {
            "format": FORMAT,
            "size": list(self.size),
            "num_frames": self.num_frames,
            "fps": self.fps,
            "frame_indices": None if self.frame_indices is None else self.frame_numbers,
            "frame_times": None if self.frame_times is None else self.timestamps,
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
        Read what `to_json` wrote. Scores become float32, masks compressed RLE.

        Args:
            source: A path, or the text itself.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the text is not JSON, a field is missing or wrong, or a mask is corrupt.
        """
        if isinstance(source, str) and source.lstrip()[:1] == "{":
            where, text = "text", source.encode(errors="surrogatepass")
        else:
            where, text = str(source), Path(source).read_bytes()
        content = read_content(text, where)

        def column(name: str, dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor([getattr(track, name) for track in content.tracks], dtype=dtype, device="cpu")

        try:
            result = cls(
                scores=column("score", torch.float32),
                labels=column("label", torch.int64),
                masks=[[dict(rle) for rle in track.segmentations] for track in content.tracks],
                query_indices=column("query_index", torch.int64),
                size=content.size,
                num_frames=content.num_frames,
                track_ids=column("track_id", torch.int64),
                id2label=content.id2label,
                frame_indices=content.frame_indices,
                fps=content.fps,
                frame_times=content.frame_times,
            )
            check_masks(content)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return result

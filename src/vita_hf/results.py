"""What a video's segmentation is handed over as."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from pycocotools import mask as mask_api


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

    def filter(self, min_score: float | None = None, labels: Sequence[int] | None = None) -> "VideoInstances":
        """Keep the tracks that score at least `min_score` and whose class index is one of `labels`."""
        keep = torch.ones(len(self), dtype=torch.bool)
        if min_score is not None:
            keep &= self.scores >= min_score
        if labels is not None:
            keep &= torch.isin(self.labels, torch.as_tensor(list(labels), dtype=torch.int64))
        return self[keep]

    @property
    def label_names(self) -> list[str]:
        """Each track's class as a name from `id2label`, or as its number where that has none."""
        names = self.id2label or {}
        return [names.get(label, str(label)) for label in self.labels.tolist()]

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
        labels = self.labels.tolist()
        return [
            {
                "video_id": video_id,
                "category_id": label + 1 if category_ids is None else category_ids[label],
                "score": score,
                "segmentations": encode_masks(track) if isinstance(track, torch.Tensor) else track,
            }
            for label, score, track in zip(labels, self.scores.tolist(), self.masks)
        ]


__all__ = ["VideoInstances", "encode_masks"]

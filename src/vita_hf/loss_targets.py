"""Ground truth of a batch: the targets of clips and frames, and the numbers that the losses are divided by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .configuration_vita import VitaConfig


@dataclass
class Targets:
    """Ground truth of some items (clips, or frames), the instances of all items one after another.

    Attributes:
        labels: `(N,)` int64.
        masks: `(N, T, H, W)` bool; `T` is 1 if the items are frames.
        ids: `(N,)` int64, equal for the same object in all frames of its clip.
        counts: number of instances of each item.
    """

    labels: Tensor
    masks: Tensor
    ids: Tensor
    counts: list[int]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, items: slice) -> "Targets":
        offsets = self.offsets()
        start, stop, _ = items.indices(len(self))
        rows = slice(offsets[start], offsets[stop])
        return Targets(self.labels[rows], self.masks[rows], self.ids[rows], self.counts[items])

    def offsets(self) -> list[int]:
        """Row of each item's first instance, and the total number of instances at the end."""
        return np.cumsum([0, *self.counts]).tolist()


def find_instance_presence(mask_labels: Sequence[Tensor]) -> list[Tensor]:
    """Tell for each clip in which frames its instances appear.

    Args:
        mask_labels: for each clip `(N, T, H, W)`, non-zero inside the instance.

    Returns:
        For each clip `(N, T)` bool on the CPU, True where the mask is not empty.
    """
    presence = torch.cat([masks.flatten(2).any(-1) for masks in mask_labels]).cpu().bool()
    return list(presence.split([len(masks) for masks in mask_labels]))


def prepare_targets(
    mask_labels: Sequence[Tensor], class_labels: Sequence[Tensor], instance_presence: Sequence[Tensor]
) -> tuple[Targets, Targets]:
    """Collect the targets of clips, and of frames in the order (clip, frame).

    A frame's targets are the instances that appear in it. Instances that appear in no frame are dropped.

    Args:
        mask_labels, class_labels: for each clip `(N, T, H, W)` and `(N,)`.
        instance_presence: see `find_instance_presence`.
    """
    masks, labels = torch.cat(list(mask_labels)) != 0, torch.cat(list(class_labels))
    length = masks.shape[1]
    clip_rows, frame_rows, clip_counts, frame_counts = [], [], [], []
    first = 0  # row of the clip's first instance
    for presence in instance_presence:
        rows = first + presence.any(1).nonzero()[:, 0]
        frames, instances = presence.T.nonzero(as_tuple=True)
        clip_rows.append(rows)
        clip_counts.append(len(rows))
        frame_rows.append((first + instances) * length + frames)
        frame_counts += presence.sum(0).tolist()
        first += len(presence)
    clips, frames = (torch.cat(rows).to(masks.device) for rows in (clip_rows, frame_rows))
    instances = frames // length
    return (
        Targets(labels[clips], masks[clips], clips, clip_counts),
        Targets(labels[instances], masks.flatten(0, 1)[frames, None], instances, frame_counts),
    )


def count_loss_normalizers(
    config: VitaConfig, instance_presence: Sequence[Tensor], layers: int | None = None
) -> dict[str, Tensor]:
    """Count what each loss term of one micro-batch is divided by; see `reduce_loss_normalizers`.

    Args:
        instance_presence: for each clip `(N, T)` bool, see `find_instance_presence`.
        layers: number of frame-decoder layers that the video part sees; by default `num_last_layers`, as in training.

    Returns:
        Scalar float32 tensors on the CPU: `frame_masks` and `video_masks` (target masks; clips count once per layer),
        `frame_classes` and `video_classes` (class weights summed over all queries), `similarity_pairs` (ordered pairs
        of matched queries of the same clip and layer).
    """
    layers = config.num_last_layers if layers is None else layers
    clip_counts = torch.stack([presence.any(1).sum() for presence in instance_presence])
    frame_counts = torch.stack([presence.sum(0) for presence in instance_presence])  # (B, T)

    def class_weights(counts: Tensor, queries: int, no_object_weight: float) -> Tensor:
        matched = counts.clamp(max=queries).sum().float()
        return matched + no_object_weight * (queries * counts.numel() - matched)

    matched_per_clip = frame_counts.clamp(max=config.num_queries).sum(1)
    matched_per_clip += clip_counts.clamp(max=config.num_video_queries)
    counted = {
        "frame_masks": frame_counts.sum(),
        "frame_classes": class_weights(frame_counts, config.num_queries, config.no_object_weight),
        "video_masks": clip_counts.sum() * layers,
        "video_classes": class_weights(clip_counts, config.num_video_queries, config.video_no_object_weight) * layers,
        "similarity_pairs": matched_per_clip.square().sum() * layers,
    }
    return {name: number.cpu().float() for name, number in counted.items()}


def reduce_loss_normalizers(
    normalizers: dict[str, Tensor], device: torch.device, micro_batches: int = 1
) -> dict[str, Tensor]:
    """Sum over processes and divide by the number of shares that the gradient is averaged over.

    Args:
        normalizers: from `count_loss_normalizers`, summed over the micro-batches of one optimizer step.
        device: where the losses are computed.
        micro_batches: number of micro-batches; whoever averages their losses undoes this division.

    Returns:
        Divisors for `forward(loss_normalizers=…)`. Averaged over processes (as DDP does) and micro-batches, the losses
        then equal the losses of a single batch that holds everything.
    """
    values = torch.stack(list(normalizers.values())).to(device)
    processes = 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        processes = torch.distributed.get_world_size()
    reduced = dict(zip(normalizers, values))
    for name in ("frame_masks", "video_masks"):
        reduced[name] = reduced[name].clamp(min=1)
    reduced["similarity_pairs"] = reduced["similarity_pairs"] + 1e-6
    return {name: value / (processes * micro_batches) for name, value in reduced.items()}

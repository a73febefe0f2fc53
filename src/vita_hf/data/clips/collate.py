"""Batches of clips."""

from collections.abc import Sequence
from typing import Any

import torch

from ...video.batching import normalize_and_pad


def collate_clips(clips: Sequence[dict[str, Any]], **normalization: Any) -> dict[str, Any]:
    """
    Normalize clips and pad them to one size with zeros at the bottom and the right.

    Args:
        clips: B clips of T frames, as [`draw_clip`] or [`ClipDataset`] returns them.
        **normalization: See [`normalize_and_pad`].

    Returns:
        Dictionary with

        - **pixel_values_videos**: float32 (B, T, 3, H, W).
        - **mask_labels**: bool (N, T, H, W), the instances of all clips one after another: handing over a single
          tensor is fastest.
        - **class_labels**: int64 (N,).
        - **instance_presence**: bool (N, T), True where an instance has a pixel in a frame.
        - **instances**: list of B numbers of instances, for `split`.
        - **video_ids**: list of B integers.
        - **skipped**: messages about broken rows that other rows replaced; usually empty.

    Raises:
        ValueError: if there are no clips, or if their lengths differ.

    Example:
    ```python
    >>> import torch
    >>> from vita_hf.data.clips.collate import collate_clips

    >>> clip = {"video_id": 7, "class_labels": torch.tensor([3]), "mask_labels": torch.ones(1, 2, 30, 50).bool()}
    >>> clip["pixel_values"] = torch.zeros(2, 3, 30, 50, dtype=torch.uint8)
    >>> normalization = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
    >>> batch = collate_clips([clip, clip], **normalization, size_divisor=32)
    >>> batch["pixel_values_videos"].shape, batch["mask_labels"].shape, batch["instances"]
    (torch.Size([2, 2, 3, 32, 64]), torch.Size([2, 2, 32, 64]), [1, 1])

    ```
    """
    lengths = sorted({len(clip["pixel_values"]) for clip in clips})
    if len(lengths) != 1:
        raise ValueError(f"clips: expected at least one, all with the same number of frames, got {lengths}")
    pixels = normalize_and_pad([clip["pixel_values"] for clip in clips], **normalization)
    instances = [len(clip["class_labels"]) for clip in clips]
    masks = torch.zeros((sum(instances), lengths[0], *pixels.shape[-2:]), dtype=torch.bool, device=pixels.device)
    for clip, padded in zip(clips, masks.split(instances)):
        height, width = clip["mask_labels"].shape[-2:]
        padded[..., :height, :width] = clip["mask_labels"]
    return {
        "pixel_values_videos": pixels,
        "mask_labels": masks,
        "class_labels": torch.cat([clip["class_labels"] for clip in clips]),
        "instance_presence": masks.flatten(2).any(2),
        "instances": instances,
        "video_ids": [clip["video_id"] for clip in clips],
        "skipped": [message for clip in clips for message in clip.get("skipped", [])],
    }

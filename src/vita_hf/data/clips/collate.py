"""From clips to a batch."""

from collections.abc import Sequence

import torch


def collate_clips(
    clips: Sequence[dict],
    *,
    image_mean: Sequence[float],
    image_std: Sequence[float],
    rescale_factor: float = 1 / 255,
    size_divisor: int = 32,
) -> dict:
    """
    Normalise clips, and pad them to one size with zeros at the right and the bottom.

    Args:
        clips: B clips of T frames, as [`draw_clip`] or [`ClipDataset`] give them.
        image_mean, image_std: of each channel, for values in [0, 1].
        rescale_factor: what pixel values are multiplied by first.
        size_divisor: height and width become multiples of this.

    Returns:
        Dictionary with

        - **pixel_values_videos** float32 (B, T, 3, H, W).
        - **mask_labels** bool (N, T, H, W), those of all clips one after another: each tensor that a worker hands over,
          and that is pinned, costs time.
        - **class_labels** int64 (N,), likewise.
        - **instance_presence** bool (N, T): True where an instance's mask in a frame is not empty.
        - **instances**: how many of the N belong to each clip, for `split`.
        - **video_ids**: B integers.
        - **skipped**: messages about broken rows that other rows took the place of, of all clips; usually none.

    Raises:
        ValueError: no clips, or clips of different lengths.
    """
    lengths = sorted({len(clip["pixel_values"]) for clip in clips})
    if len(lengths) != 1:
        raise ValueError(f"clips: expected at least one, all of one number of frames, got {lengths}")
    sizes = [clip["pixel_values"].shape[-2:] for clip in clips]
    height, width = (-(-max(side) // size_divisor) * size_divisor for side in zip(*sizes))
    # Both steps in one: value · scale − shift.
    std = torch.tensor(image_std, dtype=torch.float32).view(3, 1, 1)
    scale, shift = rescale_factor / std, torch.tensor(image_mean, dtype=torch.float32).view(3, 1, 1) / std

    pixels = torch.zeros((len(clips), lengths[0], 3, height, width))
    instances = [len(clip["class_labels"]) for clip in clips]
    masks = torch.zeros((sum(instances), lengths[0], height, width), dtype=torch.bool)
    for clip, padded, padded_masks, (h, w) in zip(clips, pixels, masks.split(instances), sizes):
        torch.mul(clip["pixel_values"], scale, out=padded[..., :h, :w]).sub_(shift)
        padded_masks[..., :h, :w] = clip["mask_labels"]
    return {
        "pixel_values_videos": pixels,
        "mask_labels": masks,
        "class_labels": torch.cat([clip["class_labels"] for clip in clips]),
        "instance_presence": masks.flatten(2).any(-1),
        "instances": instances,
        "video_ids": [clip["video_id"] for clip in clips],
        "skipped": [message for clip in clips for message in clip.get("skipped", [])],
    }


__all__ = ["collate_clips"]

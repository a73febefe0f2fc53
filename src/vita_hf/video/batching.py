"""Turn frames into network input: normalize, pad and stack into a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameChunk:
    """
    Some frames of a video, ready for the network.

    Attributes:
        pixel_values: Float32 tensor (n, 3, H, W), normalized and padded.
        frame_size: (h, w) after resizing, before padding.
        original_size: (h, w) of the video itself.
        indices: The frames' numbers in the video.
        times: When they are shown, in seconds from the start of the video; None where unknown.
    """

    pixel_values: Tensor
    frame_size: tuple[int, int]
    original_size: tuple[int, int]
    indices: list[int]
    times: list[float | None]


def padded_size(sizes: Iterable[Sequence[int]], divisor: int) -> tuple[int, int]:
    """Compute the smallest (height, width), divisible by `divisor`, that all `sizes` (height, width) fit into."""
    height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes))
    return height, width


def normalize_and_pad(
    videos: Sequence[Tensor],
    *,
    image_mean: Sequence[float],
    image_std: Sequence[float],
    rescale_factor: float,
    size_divisor: int,
    do_rescale: bool = True,
    do_normalize: bool = True,
) -> Tensor:
    """
    Normalize videos and write them into one batch, padded with zeros at the bottom, at the right and at the end.

    Args:
        videos: Uint8 or float tensors (T, 3, h, w), all on one device.
        image_mean, image_std: Mean and standard deviation of each channel, for values in 0 … 1.
        rescale_factor: What values are multiplied by, usually 1/255.
        size_divisor: Height and width of the batch are multiples of this.
        do_rescale: Whether to multiply by `rescale_factor`.
        do_normalize: Whether to subtract the mean and divide by the standard deviation.

    Returns:
        Float32 tensor (B, T, 3, H, W), where T is the length of the longest video.
    """
    sizes = [video.shape[-2:] for video in videos]
    shape = (len(videos), max(map(len, videos)), 3, *padded_size(sizes, size_divisor))
    batch = torch.zeros(shape, dtype=torch.float32, device=videos[0].device)
    # Both steps in one: (value − mean / factor) / (std / factor).
    factor = rescale_factor if do_rescale else 1.0
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=batch.device).reshape(-1, 1, 1) * (1.0 / factor)
        for values in (image_mean, image_std)
    )
    for video, padded, (height, width) in zip(videos, batch, sizes):
        target = padded[: len(video), :, :height, :width]
        if do_normalize:
            torch.sub(video, mean, out=target).div_(std)
        else:
            torch.mul(video, factor, out=target)
    return batch


__all__ = ["FrameChunk", "normalize_and_pad", "padded_size"]

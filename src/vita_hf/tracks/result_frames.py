"""Read the frames for which a result has masks from its video."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..video.frame_source import FrameSource
from ..video.images import to_rgb_tensor
from .base import Tracks


def read_result_frames(
    result: Tracks, source: FrameSource, chosen: Sequence[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """
    Read the frames of a result from its video.

    Args:
        result: The tracks.
        source: The video that they were found in.
        chosen: Read only these of the result's frames, in increasing order.

    Yields:
        The number of a frame in the result, and the frame: uint8 RGB (h, w, 3).

    Raises:
        ValueError: if the video has too few frames, or a frame's size is not that of the masks.
    """
    chosen = range(result.num_frames) if chosen is None else chosen
    frame_numbers = result.frame_numbers
    numbers = [frame_numbers[frame] for frame in chosen]
    count = 0
    try:
        for frame in source.frames(numbers):
            yield chosen[count], _to_rgb(frame, f"{source.name}, frame {numbers[count]}", result.size)
            count += 1
            if count == len(numbers):
                return  # without decoding the rest of the file
    except IndexError:  # a list is too short; a file just ends
        pass
    if count < len(numbers):
        raise ValueError(f"{source.name} has no frame {numbers[count]}, which the result has masks for")


def _to_rgb(frame: Any, where: str, size: tuple[int, int]) -> np.ndarray:
    image = to_rgb_tensor(frame, where)
    if image.is_floating_point():
        image = (image * 255 if image.max() <= 1 else image).round().clamp(0, 255).to(torch.uint8)
    if tuple(image.shape[1:]) != tuple(size):
        height, width = image.shape[1:]
        raise ValueError(f"{where}: expected {size[0]}×{size[1]} pixels like the masks, got {height}×{width}")
    return image.permute(1, 2, 0).contiguous().numpy()


__all__ = ["read_result_frames"]

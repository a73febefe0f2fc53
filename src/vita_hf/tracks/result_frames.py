"""Read the frames for which a result has masks from its video."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..video.frame_source import Frame, FrameSource
from ..video.images import FloatScale, to_rgb_tensor
from .base import Tracks


def read_result_frames(result: Tracks, source: FrameSource, chosen: Sequence[int] | None = None) -> Iterator[Frame]:
    """
    Read the frames of a result from its video.

    Args:
        result: The tracks.
        source: The video that they were found in.
        chosen: Read only these of the result's frames, in increasing order.

    Yields:
        Frames: their `index` in the result, `time` by the result or else by the video, and `image`, uint8 RGB
        (h, w, 3).

    Raises:
        ValueError: if the video has too few frames, or a frame's size is not that of the masks.
    """
    chosen = range(result.num_frames) if chosen is None else chosen
    frame_numbers, times = result.frame_numbers, result.timestamps
    numbers = [frame_numbers[frame] for frame in chosen]
    count, scale = 0, FloatScale()
    try:
        for frame in source.read(numbers):
            where, index = f"{source.name}, frame {frame.index}", chosen[count]
            time = times[index] if times else frame.time
            image = scale(to_rgb_tensor(frame.image, where), where)
            yield Frame(index, time, _to_rgb(image, where, result.size))
            count += 1
            if count == len(numbers):
                return  # without decoding the rest of the file
    except IndexError:  # a list is too short; a file just ends
        pass
    if count < len(numbers):
        raise ValueError(f"{source.name} has no frame {numbers[count]}, which the result has masks for")


def _to_rgb(image: torch.Tensor, where: str, size: tuple[int, int]) -> np.ndarray:
    image = image.round().clamp(0, 255).to(torch.uint8)
    if tuple(image.shape[1:]) != tuple(size):
        height, width = image.shape[1:]
        raise ValueError(f"{where}: expected {size[0]}×{size[1]} pixels like the masks, got {height}×{width}")
    return image.permute(1, 2, 0).contiguous().numpy()


__all__ = ["read_result_frames"]

"""The frames of a result, read from its video."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..video.images import to_rgb_tensor
from ..video.sources import open_video, split_videos
from .base import Tracks


class ResultFrames:
    """
    Read the frames that a result has masks for from its video.

    Args:
        result: The tracks.
        video: The video they were found in: anything that [`~vita_hf.video.sources.open_video`] takes.
        decoder: Decoder of video files, "pyav" or "torchcodec".
        chosen: Read only these of the result's frames, in increasing order.

    Attributes:
        fps: Frame rate of the video, or None if unknown.

    Yields:
        Uint8 RGB arrays (h, w, 3).

    Raises:
        ValueError: if there is more than one video; while iterating, if the video has too few frames or a frame's size
            is not that of the masks.
    """

    def __init__(self, result: Tracks, video: Any, decoder: str = "pyav", chosen: Sequence[int] | None = None):
        numbers = result.frame_numbers
        self.numbers = numbers if chosen is None else [numbers[frame] for frame in chosen]
        self.size = tuple(result.size)
        if not isinstance(video, Iterator):
            videos = split_videos(video)
            if len(videos) > 1:
                raise ValueError(f"expected the one video that the tracks were found in, got {len(videos)}")
            video = videos[0]
        self.source = open_video(video, decoder=decoder)
        self.fps = self.source.fps

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        name, count = self.source.name, 0
        try:
            for frame in self.source.frames(self.numbers):
                yield self._to_rgb(frame, f"{name}, frame {self.numbers[count]}")
                count += 1
                if count == len(self.numbers):
                    return  # the rest of the file need not be decoded
        except IndexError:  # a list is too short; a file just ends
            pass
        if count < len(self.numbers):
            raise ValueError(f"{name} has no frame {self.numbers[count]}, which the result has masks for")

    def _to_rgb(self, frame: Any, where: str) -> np.ndarray:
        image = to_rgb_tensor(frame, where)
        if image.is_floating_point():
            image = (image * 255 if image.max() <= 1 else image).round().clamp(0, 255).to(torch.uint8)
        if tuple(image.shape[1:]) != self.size:
            expected, got = ("×".join(map(str, size)) for size in (self.size, image.shape[1:]))
            raise ValueError(f"{where}: expected {expected} pixels like the masks, got {got}")
        return image.permute(1, 2, 0).contiguous().numpy()


__all__ = ["ResultFrames"]

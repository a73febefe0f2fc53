"""
Open a video of any kind.

| what                                            | opened as       |
|-------------------------------------------------|-----------------|
| video file, URL                     | `VideoReader`   |
| folder of images, list of images, array, tensor | `FrameList`     |
| iterator of images                              | `FrameIterator` |
"""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .download import is_url, shown
from .frame_source import FrameSource, check_frame_size
from .images import IMAGE_SUFFIXES, image_size, is_image, list_frames
from .reader import VideoReader


def open_video(video: Any, name: str | None = None, decoder: str = "pyav") -> FrameSource:
    """
    Open one video of any kind.

    Args:
        video: A path to a video file or to a folder of images, an URL, an image or a list of images, an
            array or tensor with 4 dimensions, or an iterator of images. An open source is returned as it is.
        name: The video's name in messages; by default its path or address.
        decoder: Decoder of video files, see [`VideoReader`].

    Returns:
        A [`FrameSource`], whose `frames()` yields the frames.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if `video` is nothing of the kind.
        ValueError: if it has no frames or cannot be decoded.

    Example:
    ```python
    >>> import numpy as np
    >>> from vita_hf.video.sources import open_video

    >>> source = open_video(np.zeros((5, 48, 64, 3), dtype=np.uint8))
    >>> source.length, len(list(source.frames([0, 4])))
    (5, 2)

    ```
    """
    if isinstance(video, FrameSource):
        return video
    name = name or (shown(video) if isinstance(video, str | Path) else "the video")
    if is_image(video):
        return FrameList([video], name)
    if isinstance(video, str | Path):
        if not Path(video).is_dir():
            return VideoReader(video, decoder, name)
        frames = list_frames(video)
        if not frames:
            raise ValueError(f"{name} has no frames: no {'/'.join(sorted(IMAGE_SUFFIXES))} files in the folder")
        return FrameList(frames, name)
    if isinstance(video, np.ndarray | torch.Tensor):
        if video.ndim != 4:
            raise ValueError(f"{name}: expected an array with 4 dimensions (frames, …), got shape {tuple(video.shape)}")
        return FrameList(video, name)
    if isinstance(video, Iterator):
        return FrameIterator(video, name)
    if not isinstance(video, list | tuple):
        raise TypeError(f"{name} must be a path, an array, a tensor or a list of images, got {type(video).__name__}")
    for index, item in enumerate(video):
        if not is_image(item):
            raise TypeError(f"{name}: item {index} of the list of images is no image but {type(item).__name__}")
    return FrameList(video, name)


def split_videos(videos: Any) -> list:
    """
    Return a list with one item per video, each of which [`open_video`] can open.

    A list of images is one video; a list of videos, or an array with 5 dimensions, is a batch.

    Raises:
        TypeError: if `videos` is neither a video nor a list.
        ValueError: if it is empty, or mixes images and videos.
    """
    if is_image(videos) or isinstance(videos, str | Path | FrameSource):
        videos = [videos]
    elif isinstance(videos, np.ndarray | torch.Tensor):
        videos = list(videos) if videos.ndim == 5 else [videos]
    elif not isinstance(videos, list | tuple):
        raise TypeError(f"videos must be a path, an array, a tensor or a list of those, got {type(videos).__name__}")
    if not len(videos):
        raise ValueError("videos is empty: expected at least one video")
    are_images = [is_image(item) for item in videos]
    if all(are_images):
        return [videos]
    if any(are_images):
        raise ValueError(
            f"videos mixes images (item {are_images.index(True)}) and videos (item {are_images.index(False)}): "
            "a list of images is one video, a list of videos is a batch"
        )
    return list(videos)


class FrameList(FrameSource):
    """Frames in memory, or paths of images: a sequence of images of any kind, or an array with 4 dimensions."""

    def __init__(self, items: Sequence | np.ndarray | torch.Tensor, name: str):
        self.items = items
        self.name = name
        self.length = len(items)

    def frames(self, indices: Container[int] | None = None) -> Iterator[Any]:
        if isinstance(indices, Sequence):
            return (self.items[index] for index in indices)
        return (item for index, item in enumerate(self.items) if indices is None or index in indices)

    def count_frames(self) -> int:
        return len(self.items)

    def check(self) -> None:
        """Read the headers of all image files, to find missing or damaged files and different sizes at once."""
        first = None
        for index, item in enumerate(self.items):
            if isinstance(item, str | Path) and not is_url(item):
                size = image_size(item)
                first = first or size
                check_frame_size(f"{self.name}, frame {index} ({item})", size, first)


class FrameIterator(FrameSource):
    """Images of any kind from an iterator, which can be read only once."""

    rereadable = False

    def __init__(self, items: Iterator, name: str):
        self.items: Iterator | None = items
        self.name = name

    def frames(self, indices: Container[int] | None = None) -> Iterator[Any]:
        if self.items is None:
            raise ValueError(f"{self.name} is an iterator, which gives its frames only once")
        items, self.items = self.items, None
        return (item for index, item in enumerate(items) if indices is None or index in indices)

    def count_frames(self) -> int:
        raise ValueError(f"{self.name} is an iterator, whose frames cannot be counted before they are used")


__all__ = ["FrameIterator", "FrameList", "open_video", "split_videos"]

"""
Open a video of any kind.

| what                                            | opened as       |
|-------------------------------------------------|-----------------|
| video file, URL                                 | `VideoReader`   |
| animated image                                  | `AnimatedImage` |
| folder of images, list of images, array, tensor | `FrameList`     |
| iterator of images                              | `FrameIterator` |
"""

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .animation import AnimatedImage
from .download import MAX_BYTES, is_url, shown
from .frame_source import Choice, Frame, FrameSource, check_frame_size, choose_frames
from .images import ANIMATION_SUFFIXES, IMAGE_SUFFIXES, fetch_image, image_size, is_animation, is_image, list_frames
from .reader import VIDEO_SUFFIXES, VideoReader

logger = logging.getLogger(__name__)


def open_video(
    video: Any,
    name: str | None = None,
    decoder: str = "pyav",
    *,
    frame_rate: float | None = None,
    strict: bool = False,
    max_bytes: int = MAX_BYTES,
) -> FrameSource:
    """
    Open one video of any kind.

    Args:
        video: A path to a video file, to an animated image or to a folder of images, an URL, an image or a list of
            images, an array or tensor with 4 dimensions, or an iterator of images. An open source is returned as it is.
        name: The video's name in messages; by default its path or address.
        decoder: Decoder of video files, see [`VideoReader`].
        frame_rate: Frames per second, if the video has no times of its own.
        strict: Whether damage in a video file is an error, see [`VideoReader`].
        max_bytes: The largest video to download, by default 20 GiB.

    Returns:
        A [`FrameSource`], whose `read()` yields the frames.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if `video` is nothing of the kind.
        ValueError: if it has no frames, is a folder of videos or a live source, or cannot be decoded.

    Example:
    ```python
    >>> import numpy as np
    >>> from vita_hf.video.sources import open_video

    >>> source = open_video(np.zeros((5, 48, 64, 3), dtype=np.uint8), frame_rate=10)
    >>> [(frame.index, frame.time, frame.image.shape) for frame in source.read([0, 4])]
    [(0, 0.0, (48, 64, 3)), (4, 0.4, (48, 64, 3))]

    ```
    """
    if isinstance(video, FrameSource):
        return video
    name = name or (shown(video) if isinstance(video, str | Path) else "the video")
    if is_image(video):
        video = fetch_image(video) if is_url(video) else video
        source = AnimatedImage(video, name, strict) if _is_animation(video) else FrameList([video], name)
    elif isinstance(video, str | Path):
        refuse_live_sources(video)
        if _is_folder(video):
            source = _open_folder(Path(video), name)
        else:
            source = VideoReader(video, decoder, name, strict=strict, max_bytes=max_bytes)
    else:
        source = _open_frames(video, name)
    if not source.timed:
        source.fps = frame_rate
    return source


def _open_folder(folder: Path, name: str) -> FrameSource:
    videos, frames = list_videos(folder), list_frames(folder)
    if videos and videos != [folder]:
        raise ValueError(f"{name} is a folder of videos ({_enumerate(videos)}): pass them instead")
    if not videos:
        raise ValueError(f"{name} has no frames: no {'/'.join(sorted(IMAGE_SUFFIXES))} files in the folder")
    _mention_left_out(folder, set(_visible(folder)) - set(frames))
    return FrameList(frames, name)


def _open_frames(video: Any, name: str) -> FrameSource:
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
            raise TypeError(f"{name}: expected a list of images, but item {index} is of type {type(item).__name__}")
    return FrameList(video, name)


def refuse_live_sources(video: str | Path) -> None:
    """Raise a ValueError if `video` is standard input, a camera, a pipe or a stream, and no file or http address."""
    path, text = Path(video), str(video)
    if is_url(video) or path.is_file() or path.is_dir():
        return
    if path.exists() or text == "-" or text.isdecimal() or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ValueError(
            f"{shown(video)} cannot be read: videos are files, folders and http(s) addresses; "
            "record cameras, pipes and streams to a file first"
        )


def list_videos(folder: Path) -> list[Path]:
    """
    List the videos that a folder stands for, in order of their names.

    These are the video files, animated images and folders of images in it; or only the folder itself, if its images are
    the frames of one video. A picture beside videos does not count. Whatever is left out is named in a warning.
    """
    if _holds_frames(folder):
        return [folder]
    entries = _visible(folder)
    videos = [path for path in entries if _is_video_file(path) or (path.is_dir() and _holds_frames(path))]
    if videos:
        _mention_left_out(folder, set(entries) - set(videos))
    return videos


def _holds_frames(folder: Path) -> bool:
    """Tell whether the images of a folder are frames, and not pictures beside videos."""
    entries, images = _visible(folder), list_frames(folder)
    if not images or any(map(_is_video_file, entries)):
        return False
    return len(images) > 1 or not any(list_frames(path) for path in entries if path.is_dir())


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != ".")


def _is_video_file(path: Path) -> bool:
    suffix = path.suffix.lower()
    return path.is_file() and (suffix in VIDEO_SUFFIXES or (suffix in ANIMATION_SUFFIXES and is_animation(path)))


def _is_animation(image: Any) -> bool:
    return isinstance(image, str | Path | Image.Image) and not is_url(image) and is_animation(image)


def _is_listed_animation(item: Any) -> bool:
    """Look only into files that are often animated: a list may be long."""
    is_path = isinstance(item, str | Path)
    return not (is_path and Path(item).suffix.lower() not in ANIMATION_SUFFIXES) and _is_animation(item)


def _is_folder(video: str | Path) -> bool:
    return not is_url(video) and Path(video).is_dir()


def _mention_left_out(folder: Path, paths: Collection[Path]) -> None:
    if paths:
        logger.warning("%s: %d of its entries are left out: %s", folder, len(paths), _enumerate(sorted(paths)))


def _enumerate(paths: Sequence[Path], most: int = 5) -> str:
    return ", ".join([path.name for path in paths[:most]] + ["…"] * (len(paths) > most))


def split_videos(videos: Any) -> list:
    """
    Return a list with one item per video, each of which [`open_video`] can open.

    A list of images is one video; a list of videos, or an array with 5 dimensions, is a batch.

    Raises:
        TypeError: if `videos` is neither a video nor a list.
        ValueError: if it is empty, or mixes images and videos.
    """
    if is_image(videos) or isinstance(videos, str | Path | FrameSource):
        return [videos]
    if isinstance(videos, np.ndarray | torch.Tensor):
        videos = list(videos) if videos.ndim == 5 else [videos]
    elif not isinstance(videos, list | tuple):
        raise TypeError(f"videos must be a path, an array, a tensor or a list of those, got {type(videos).__name__}")
    if not len(videos):
        raise ValueError("videos is empty: expected at least one video")
    are_images = [is_image(item) and not _is_listed_animation(item) for item in videos]
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

    def read(self, chosen: Choice | None = None) -> Iterator[Frame]:
        """Yield the chosen frames (by default all) in order, or in that of a sequence of indices."""
        if isinstance(chosen, Sequence):
            return (self._frame(index) for index in chosen)
        return choose_frames(map(self._frame, range(len(self.items))), chosen)

    def _frame(self, index: int) -> Frame:
        return Frame(index, index / self.fps if self.fps else None, self.items[index])

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

    def read(self, chosen: Choice | None = None) -> Iterator[Frame]:
        """Yield the chosen frames (by default all) in order, once."""
        if self.items is None:
            raise ValueError(f"{self.name} is an iterator, which gives its frames only once")
        items, self.items = enumerate(self.items), None
        frames = (Frame(index, index / self.fps if self.fps else None, item) for index, item in items)
        return choose_frames(frames, chosen)

    def count_frames(self) -> int:
        raise ValueError(f"{self.name} is an iterator, whose frames cannot be counted before they are used")


__all__ = ["FrameIterator", "FrameList", "list_videos", "open_video", "refuse_live_sources", "split_videos"]

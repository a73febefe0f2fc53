"""Frames from anywhere: videos through PyAV or torchcodec, images and folders of images through Pillow, arrays."""

import logging
import math
import re
import shutil
import tempfile
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"})

# Orientations of the EXIF tag that turn an image by a quarter.
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})


def list_frames(directory: str | Path) -> list[Path]:
    """
    List the images of a folder in order of their names, numbers compared as numbers (`2.jpg` before `10.jpg`).

    Hidden files and files without one of `IMAGE_SUFFIXES` are skipped. The list is empty where there are no images.
    """

    def natural(path: Path):
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    images = (p for p in Path(directory).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
    return sorted(images, key=natural)


def read_image(path: str | Path) -> Image.Image:
    """
    Open and decode one image file, or one behind an http(s) address.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The address can't be reached.
        ValueError: The file can't be decoded as an image; the message names it.
    """
    file = download(path) if is_url(path) else path
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise FileNotFoundError(f"image file not found: {path}") from None
    except (OSError, SyntaxError) as error:  # Pillow's decoders raise either on damaged files
        raise ValueError(f"{path} can't be decoded as an image: {error}") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """
    Read an image's (height, width), once it is turned upright, from the file's header alone.

    Raises:
        FileNotFoundError, ValueError: As `read_image`.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    except FileNotFoundError:
        raise FileNotFoundError(f"image file not found: {path}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} can't be decoded as an image: {error}") from error
    return (width, height) if sideways else (height, width)


def is_url(path: Any) -> bool:
    """Whether something is an http(s) address."""
    return isinstance(path, str) and path.startswith(("http://", "https://"))


def download(url: str) -> IO[bytes]:
    """
    Download into a temporary file that has no name, so that nothing is left of it however the process ends.

    Raises:
        OSError: The address can't be reached, or answers with an error.
    """
    file = tempfile.TemporaryFile(prefix="vita-hf-")
    try:
        # Some servers turn Python's own name away.
        with urlopen(Request(url, headers={"User-Agent": "vita-hf"})) as response:
            shutil.copyfileobj(response, file, 2**20)
    except (OSError, HTTPException, ValueError) as error:
        file.close()
        raise OSError(f"can't download {url}: {error}") from error
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


@dataclass(frozen=True)
class EveryNth(Container[int]):
    """
    The frame indices ⌊0·step⌋, ⌊1·step⌋, ⌊2·step⌋ …: thins a video out without knowing how long it is.

    Attributes:
        step: Frames of the video per frame used, at least 1; need not be whole, but exact.
    """

    step: int | Fraction

    def __contains__(self, index: object) -> bool:
        return math.ceil(index / self.step) * self.step < index + 1

    def __getitem__(self, position: int) -> int:
        return math.floor(position * self.step)

    def count(self, num_frames: int) -> int:
        """How many of a video's frames are used."""
        return math.ceil(num_frames / self.step)


class FrameSource(Protocol):
    """
    A video's frames, one at a time.

    Attributes:
        name: What messages call the video.
        fps: Frames per second, or None if unknown.
        length: Number of frames as far as known without decoding, which may be wrong for video files; or None.
        rereadable: Whether `frames` can be called again.
    """

    name: str
    fps: float | None
    length: int | None
    rereadable: bool

    def count_frames(self) -> int: ...

    def frames(self, indices: Container[int] | None = None) -> Iterator[Any]: ...


class FrameList:
    """Frames in memory, or paths of images; see [`FrameSource`]."""

    fps = None
    rereadable = True

    def __init__(self, items: Sequence, name: str):
        self.items = items
        self.name = name
        self.length = len(items)

    def count_frames(self) -> int:
        return len(self.items)

    def frames(self, indices: Container[int] | None = None) -> Iterator[Any]:
        if isinstance(indices, Sequence):
            return (self.items[index] for index in indices)
        return (item for index, item in enumerate(self.items) if indices is None or index in indices)

    def check_files(self) -> None:
        """
        Read the headers of all files, so that a long run does not stumble over the last one.

        Raises:
            FileNotFoundError, ValueError: A file is missing, no image, or of another size than the first.
        """
        first = None
        for index, item in enumerate(self.items):
            if isinstance(item, str | Path) and not is_url(item):
                size = image_size(item)
                first = first or size
                if size != first:
                    raise different_size(f"{self.name}, frame {index} ({item})", size, first)


class FrameIterator:
    """Frames that come once, from an iterator; see [`FrameSource`]."""

    fps = None
    length = None
    rereadable = False

    def __init__(self, items: Iterator, name: str):
        self.items = items
        self.name = name

    def count_frames(self) -> int:
        raise ValueError(f"{self.name} is an iterator, whose frames can't be counted before they are used")

    def frames(self, indices: Container[int] | None = None) -> Iterator[Any]:
        if self.items is None:
            raise ValueError(f"{self.name} is an iterator, which gives its frames only once")
        items, self.items = self.items, None
        return (item for index, item in enumerate(items) if indices is None or index in indices)


def is_image(item: Any) -> bool:
    """Whether something is one image: a path with an image's suffix, a PIL image, an array of 2 or 3 dimensions."""
    if isinstance(item, str | Path):
        return Path(item).suffix.lower() in IMAGE_SUFFIXES and not Path(item).is_dir()
    if isinstance(item, np.ndarray | torch.Tensor):
        return item.ndim in (2, 3)
    return isinstance(item, Image.Image)


def split_videos(videos: Any) -> list:
    """
    Make a list with one item a video: a path, an array with a time axis, a list of images, or an iterator of images.

    Raises:
        TypeError: It is nothing of the kind.
        ValueError: It is empty, or mixes images and videos.
    """
    if isinstance(videos, str | Path | Image.Image | VideoReader | FrameList):
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


def open_video(video: Any, name: str, decoder: str) -> FrameSource:
    """
    Open one video of any kind.

    Args:
        video: An item of [`split_videos`]; one that is open is given back.
        name: What messages call it.
        decoder: For video files, see [`VideoReader`].
    """
    if isinstance(video, VideoReader | FrameList | FrameIterator):
        return video
    if isinstance(video, str | Path):
        if not Path(video).is_dir():
            return VideoReader(video, decoder)
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
            raise TypeError(f"{name}: item {index} of its list of images is not an image but {type(item).__name__}")
    return FrameList(video, name)


def different_size(where: str, size: Sequence[int], first: Sequence[int]) -> ValueError:
    """The error about a frame that is not of the first one's size."""
    return ValueError(
        f"{where}: all frames of a video must have one size; this one is {size[0]}×{size[1]}, "
        f"the first is {first[0]}×{first[1]}"
    )


class VideoReader:
    """
    A video file that can be read from start to end as often as needed, with one frame in memory at a time.

    Args:
        path: The video file, or an http(s) address; what is behind that is downloaded into a temporary file first.
        decoder: "pyav" (the `av` package; it brings FFmpeg along) or "torchcodec" (needs FFmpeg's libraries installed).

    Attributes:
        fps: Average frames per second as the file states it, or None where it doesn't.
        length: Number of frames as the file states it or its duration suggests, which may be wrong, or None.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The address can't be reached.
        ImportError: The decoder isn't installed or doesn't load.
        ValueError: The file can't be decoded, or the decoder's name is unknown; also raised while reading.
    """

    rereadable = True

    def __init__(self, path: str | Path, decoder: str = "pyav"):
        if decoder not in ("pyav", "torchcodec"):
            raise ValueError(f"decoder must be 'pyav' or 'torchcodec', got {decoder!r}")
        self.path = path if is_url(path) else Path(path)
        self.name = str(path)
        self.decoder = decoder
        self._file = None
        if not is_url(path) and not self.path.is_file():
            raise FileNotFoundError(f"video file not found: {path}")
        if decoder == "pyav":
            self._av = _import_av()
        if is_url(path):
            self._file = download(path)
        self._stated = None
        if decoder == "pyav":
            with self._open_pyav() as container:
                stream = container.streams.video[0]
                rate, self._stated = stream.average_rate, stream.frames or None
                duration = container.duration and container.duration / self._av.time_base
        else:
            metadata = self._open_torchcodec().metadata
            rate, duration = metadata.average_fps, None
            self._stated = getattr(metadata, "num_frames", None)
        self.fps = float(rate) if rate else None
        self.length = self._stated or (round(duration * self.fps) if duration and self.fps else None)

    def count_frames(self) -> int:
        """Count the frames by decoding them: what a container states is not reliable."""
        if self.decoder == "torchcodec":
            return len(self._open_torchcodec())
        return sum(1 for _ in self._decode_pyav())

    def frames(self, indices: Container[int] | None = None) -> Iterator[np.ndarray]:
        """
        Yield frames in order of presentation, turned upright, as (H, W, 3) uint8 RGB arrays.

        Args:
            indices: Which frames to yield (each once, in order); all of them by default.
        """
        wanted = set(indices) if isinstance(indices, Collection) else indices
        if self.decoder == "torchcodec":
            yield from self._decode_torchcodec(wanted)
            return
        for index, frame in enumerate(self._decode_pyav()):
            if wanted is None or index in wanted:
                # Phones store portrait videos as landscape frames plus a rotation; torchcodec applies it by itself.
                yield np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))

    def _input(self) -> str | IO[bytes]:
        if self._file is None:
            return str(self.path)
        self._file.seek(0)
        return self._file

    def _open_pyav(self):
        try:
            container = self._av.open(self._input())
        except self._av.error.FFmpegError as error:
            raise self._undecodable(error) from error
        if not container.streams.video:
            container.close()
            raise self._undecodable("it has no video stream")
        return container

    def _decode_pyav(self):
        count = 0
        with self._open_pyav() as container:
            container.streams.video[0].thread_type = "SLICE"  # with whole frames in threads, errors get lost
            try:
                for frame in container.decode(video=0):
                    count += 1
                    yield frame
            except self._av.error.FFmpegError as error:
                raise self._undecodable(error) from error
        # Formats count a few frames that are not shown; a file that was cut off lacks more.
        if self._stated and count < 0.95 * self._stated:
            logger.warning("%s states %d frames but ends after %d: it may be cut off", self.path, self._stated, count)

    def _decode_torchcodec(self, wanted: Container[int] | None):
        video = self._open_torchcodec()
        for index in range(len(video)):
            if wanted is None or index in wanted:
                try:
                    frame = video[index]
                except RuntimeError as error:
                    raise self._undecodable(error) from error
                yield frame.numpy()

    def _open_torchcodec(self):
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, OSError, RuntimeError) as error:  # the last two: FFmpeg's libraries are missing
            raise ImportError(
                "decoder='torchcodec' needs the torchcodec package and FFmpeg's libraries, which don't load here; "
                f"decoder='pyav' needs neither (pip install vita-hf[video]). Cause: {error}"
            ) from error
        try:
            return VideoDecoder(self._input(), dimension_order="NHWC")
        except (RuntimeError, ValueError) as error:
            raise self._undecodable(error) from error

    def _undecodable(self, reason) -> ValueError:
        return ValueError(f"{self.path} can't be decoded as a video: {reason}")


def _import_av():
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "reading video files needs the av package: pip install vita-hf[video]. "
            "Folders and lists of images work without it."
        ) from error
    return av

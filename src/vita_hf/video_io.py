"""Frames from files: videos through PyAV or torchcodec, images and folders of images through Pillow."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


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
    Open and decode one image file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file can't be decoded as an image; the message names it.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise FileNotFoundError(f"image file not found: {path}") from None
    except (OSError, SyntaxError) as error:  # Pillow's decoders raise either on damaged files
        raise ValueError(f"{path} can't be decoded as an image: {error}") from error


class VideoReader:
    """
    A video file that can be read from start to end as often as needed, with one frame in memory at a time.

    Args:
        path: The video file.
        decoder: "pyav" (the `av` package; it brings FFmpeg along) or "torchcodec" (needs FFmpeg's libraries installed).

    Attributes:
        fps: Average frames per second as the file states it, or None where it doesn't.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: The decoder isn't installed or doesn't load.
        ValueError: The file can't be decoded, or the decoder's name is unknown; also raised while reading.
    """

    def __init__(self, path: str | Path, decoder: str = "pyav"):
        if decoder not in ("pyav", "torchcodec"):
            raise ValueError(f"decoder must be 'pyav' or 'torchcodec', got {decoder!r}")
        self.path = Path(path)
        self.decoder = decoder
        if not self.path.is_file():
            raise FileNotFoundError(f"video file not found: {path}")
        if decoder == "pyav":
            self._av = _import_av()
            with self._open_pyav() as container:
                rate = container.streams.video[0].average_rate
        else:
            rate = self._open_torchcodec().metadata.average_fps
        self.fps = float(rate) if rate else None

    def count_frames(self) -> int:
        """Count the frames by decoding them: what a container states is not reliable."""
        if self.decoder == "torchcodec":
            return len(self._open_torchcodec())
        return sum(1 for _ in self._decode_pyav())

    def frames(self, indices: Collection[int] | None = None) -> Iterator[np.ndarray]:
        """
        Yield frames in order of presentation, turned upright, as (H, W, 3) uint8 RGB arrays.

        Args:
            indices: Which frames to yield (each once, in order); all of them by default.
        """
        wanted = None if indices is None else set(indices)
        if self.decoder == "torchcodec":
            yield from self._decode_torchcodec(wanted)
            return
        for index, frame in enumerate(self._decode_pyav()):
            if wanted is None or index in wanted:
                # Phones store portrait videos as landscape frames plus a rotation; torchcodec applies it by itself.
                yield np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))

    def _open_pyav(self):
        try:
            container = self._av.open(str(self.path))
        except self._av.error.FFmpegError as error:
            raise self._undecodable(error) from error
        if not container.streams.video:
            container.close()
            raise self._undecodable("it has no video stream")
        return container

    def _decode_pyav(self):
        with self._open_pyav() as container:
            container.streams.video[0].thread_type = "AUTO"
            try:
                yield from container.decode(video=0)
            except self._av.error.FFmpegError as error:
                raise self._undecodable(error) from error

    def _decode_torchcodec(self, wanted: set[int] | None):
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
            return VideoDecoder(str(self.path), dimension_order="NHWC")
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

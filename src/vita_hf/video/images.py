"""Images: list them, read them, and convert them to RGB tensors."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from .download import download, is_url, shown

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# The EXIF tag of the orientation, and its values that turn the image by a quarter.
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})


def list_frames(directory: str | Path) -> list[Path]:
    """List the images of a folder, without hidden files, in natural order of their names: `2.jpg` before `10.jpg`."""

    def natural(path: Path):
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    images = (p for p in Path(directory).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
    return sorted(images, key=natural)


def is_image(item: Any) -> bool:
    """Tell whether `item` is an image: a path with an image's suffix, a PIL image, or an array of 2 or 3 dimensions."""
    if isinstance(item, str | Path):
        return Path(item).suffix.lower() in IMAGE_SUFFIXES and not Path(item).is_dir()
    if isinstance(item, np.ndarray | torch.Tensor):
        return item.ndim in (2, 3)
    return isinstance(item, Image.Image)


def read_image(path: str | Path) -> Image.Image:
    """
    Read an image from a file or an URL.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the address cannot be reached.
        ValueError: if the file cannot be decoded as an image.
    """
    with _open_image(path) as image:
        image.load()
        return image


def image_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width) of the upright image from the file's header alone; raises like `read_image`."""
    with _open_image(path) as image:
        width, height = image.size
        sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    return (width, height) if sideways else (height, width)


@contextmanager
def _open_image(path: str | Path) -> Generator[Image.Image]:
    file = download(str(path)) if is_url(path) else path
    try:
        with Image.open(file) as image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"image file not found: {path}") from None
    except (OSError, SyntaxError) as error:  # Pillow's decoders raise either on damaged files
        raise ValueError(f"{shown(path)} cannot be decoded as an image: {error}") from error


def to_rgb_tensor(
    image: Any, where: str = "the image", data_format: str | None = None, convert_to_rgb: bool = True
) -> torch.Tensor:
    """
    Convert an image of any kind to an RGB tensor.

    Gray is repeated, an alpha channel is dropped, and images are turned upright by their EXIF tag.

    Args:
        image: A path, an URL, a PIL image, or a uint8 or float array or tensor (h, w), (h, w, C) or
            (C, h, w) with 1, 3 or 4 channels.
        where: The image's name in error messages.
        data_format: "channels_first" or "channels_last", for arrays and tensors. By default, if both are possible,
            NumPy arrays are channels last and tensors channels first.
        convert_to_rgb: Whether to convert images that are not RGB; if False, they are errors.

    Returns:
        Tensor (3, h, w), uint8 or float32 like the input.

    Raises:
        ValueError: if the dtype, the shape or the number of channels cannot be used.
    """
    if isinstance(image, str | Path):
        image = read_image(image)
    if isinstance(image, Image.Image):
        check_bit_depth(image, where)
        upright = ImageOps.exif_transpose(image)
        # Pillow converts palettes and other modes that have no channels of their own.
        image = np.array(upright.convert("RGB") if convert_to_rgb else upright)
        data_format = "channels_last"
    prefers_last = isinstance(image, np.ndarray)
    tensor = torch.from_numpy(np.array(image, order="C")) if prefers_last else image
    if tensor.is_floating_point():
        tensor = tensor.float()
    elif tensor.dtype != torch.uint8:
        raise ValueError(f"{where}: expected uint8 or float values, got {tensor.dtype}")

    if tensor.ndim == 2:
        tensor = tensor[None]
    elif _is_channels_last(tensor, where, data_format, prefers_last):
        tensor = tensor.permute(2, 0, 1)
    channels = len(tensor)
    if channels not in ((1, 3, 4) if convert_to_rgb else (3,)):
        allowed = "1, 3 or 4 channels" if convert_to_rgb else "3 channels (do_convert_rgb=False)"
        raise ValueError(f"{where}: expected {allowed}, got {channels}")
    return tensor.expand(3, -1, -1) if channels == 1 else tensor[:3]


def check_bit_depth(image: Image.Image, where: str) -> None:
    """Raise a `ValueError` if an image has more than 8 bits per channel: Pillow would clip them, and not scale."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"{where}: expected 8 bits per channel, got an image of Pillow's mode {image.mode!r}")


def _is_channels_last(image: torch.Tensor, where: str, data_format: str | None, prefers_last: bool) -> bool:
    if data_format is not None:
        return data_format == "channels_last"
    first, last = (image.shape[axis] in (1, 3, 4) for axis in (0, -1))
    if not first and not last:
        raise ValueError(f"{where}: expected 1, 3 or 4 channels, got an image of shape {tuple(image.shape)}")
    return last and (prefers_last or not first)


__all__ = ["IMAGE_SUFFIXES", "check_bit_depth", "image_size", "is_image", "list_frames", "read_image", "to_rgb_tensor"]

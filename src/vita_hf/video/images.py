"""Images: list them, read them, and convert them to RGB tensors."""

import math
import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from .download import download, is_url, shown

IMAGE_SUFFIXES = frozenset(
    ".apng .avif .avifs .bmp .heic .heif .jfif .jp2 .jpe .jpeg .jpg .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()
)
ANIMATION_SUFFIXES = frozenset({".apng", ".avif", ".avifs", ".webp"})  # of files that are often animated
_HEIF_SUFFIXES = frozenset({".heic", ".heif"})
# Formats whose further pictures are frames or pages. Those of a JPEG are previews or the other eye's view.
_ANIMATED_FORMATS = frozenset({"AVIF", "GIF", "PNG", "TIFF", "WEBP"})

_MOST_OVERSHOOT = 2.0  # a float video in 0 … 255 that stays below this is black
_MOST_UNDERSHOOT = 0.5  # of bicubic resizing, relative to the brightest value; normalized pixels are lower

# The EXIF tag of the orientation, and its values that turn the image by a quarter.
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})


def list_frames(directory: str | Path) -> list[Path]:
    """
    List the images of a folder, without hidden files, in natural order of their names: `2.jpg` before `10.jpg`.

    Of images that differ in nothing but the suffix, as `0.jpg` and `0.png`, only one is a frame: that of the suffix
    which most images have, or which comes first in the alphabet (masks are png beside jpg).
    """

    def natural(path: Path):
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    images = [p for p in Path(directory).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
    counts = Counter(path.suffix.lower() for path in images)
    frames: dict[str, Path] = {}
    for path in sorted(images, key=lambda path: (-counts[path.suffix.lower()], path.suffix.lower(), path.name)):
        frames.setdefault(path.stem, path)
    return sorted(frames.values(), key=natural)


def is_image(item: Any) -> bool:
    """Tell whether `item` is an image: a path with an image's suffix, a PIL image, or an array of 2 or 3 dimensions."""
    if isinstance(item, str | Path):
        return Path(shown(item)).suffix.lower() in IMAGE_SUFFIXES and not Path(item).is_dir()
    if isinstance(item, np.ndarray | torch.Tensor):
        return item.ndim in (2, 3)
    return isinstance(item, Image.Image)


def read_image(path: str | Path) -> Image.Image:
    """
    Read an image from a file or an URL.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the address cannot be reached.
        ValueError: if the file cannot be decoded as an image, or is an animation.
    """
    with open_image(path) as image:
        pictures = _count_pictures(image)
        image.load()
    _refuse_animation(pictures, shown(path))
    return image


def fetch_image(url: str) -> Image.Image:
    """Download an image, or an animation, and open it; raises like `read_image`."""
    file = download(url)
    try:
        return Image.open(file)
    except Exception as error:
        raise _not_decodable(url, error) from error


def image_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width) of the upright image from the file's header alone; raises like `read_image`."""
    with open_image(path) as image:
        pictures = _count_pictures(image)
        width, height = image.size
        sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    _refuse_animation(pictures, shown(path))
    return (width, height) if sideways else (height, width)


def is_animation(image: str | Path | Image.Image) -> bool:
    """Tell whether an image, or a file as far as it can be read, has several frames or pages."""
    if isinstance(image, Image.Image):
        return _count_pictures(image) > 1
    try:
        with open_image(image) as opened:
            return is_animation(opened)
    except (OSError, ValueError):
        return False


def refuse_animation(image: Image.Image, where: str) -> None:
    """Raise a ValueError if an image has several frames or pages, of which only the first would be used."""
    _refuse_animation(_count_pictures(image), where)


def _count_pictures(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if image.format in _ANIMATED_FORMATS else 1


def _refuse_animation(pictures: int, where: str) -> None:
    if pictures > 1:
        raise ValueError(f"{where}: expected one picture, got an animation of {pictures}: pass it alone, as a video")


@contextmanager
def open_image(path: str | Path) -> Generator[Image.Image]:
    """Open an image for a block that reads it; raises like `read_image`."""
    file = download(str(path)) if is_url(path) else path
    if Path(path).suffix.lower() in _HEIF_SUFFIXES:
        _register_heif()
    try:
        with Image.open(file) as image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"image file not found: {path}") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow raise almost anything, even TypeError and struct.error
        raise _not_decodable(path, error) from error


def _not_decodable(path: str | Path, error: Exception) -> ValueError:
    heif = Path(path).suffix.lower() in _HEIF_SUFFIXES
    hint = " (HEIC images need the pillow-heif package: pip install pillow-heif)" if heif else ""
    return ValueError(f"{shown(path)} cannot be decoded as an image: {error}{hint}")


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


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
        refuse_animation(image, where)
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


class FloatScale:
    """
    Bring the float frames of one video to values in 0 … 255; frames of other types stay as they are.

    Values in 0 … 1 are recognized by the first frame that is not black, and become uint8. They may exceed 1 a little,
    as after bicubic resizing.
    """

    def __init__(self) -> None:
        self._in_unit_range: bool | None = None

    def __call__(self, frame: torch.Tensor, where: str) -> torch.Tensor:
        """
        Scale a frame.

        Raises:
            ValueError: if its values are not in the range of earlier frames, negative, or not finite.
        """
        if not frame.is_floating_point():
            return frame
        brightest = frame.max().item()
        if not math.isfinite(brightest):
            raise ValueError(f"{where}: pixel values must be finite, got {brightest}")
        darkest = frame.min().item()
        if darkest < -_MOST_UNDERSHOOT * max(brightest, 1):
            raise ValueError(
                f"{where}: expected values in 0 … 1 or in 0 … 255, got {darkest:g} … {brightest:g}; if the frames are "
                "normalized, undo that, since the processor does it"
            )
        if self._in_unit_range is None and brightest > 0:
            self._in_unit_range = brightest < _MOST_OVERSHOOT
        if not self._in_unit_range:
            return frame
        if brightest >= _MOST_OVERSHOOT:
            raise ValueError(
                f"{where}: values up to {brightest:g} after frames with values in 0 … 1: floats must be all in "
                "0 … 1 or all in 0 … 255"
            )
        return (frame * 255).round().clamp(0, 255).to(torch.uint8)


__all__ = [
    "ANIMATION_SUFFIXES",
    "IMAGE_SUFFIXES",
    "FloatScale",
    "check_bit_depth",
    "fetch_image",
    "image_size",
    "is_animation",
    "is_image",
    "list_frames",
    "open_image",
    "read_image",
    "refuse_animation",
    "to_rgb_tensor",
]

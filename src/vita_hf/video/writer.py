"""Frames to files: mp4 and gif through PyAV, folders of png through Pillow; one frame in memory at a time."""

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import atomic_path
from .sources import _import_av

# FFmpeg's numbers for BT.709, limited range: what players assume where a file doesn't say, and what HD is made in.
_BT709, _LIMITED_RANGE = 1, 1


def check_output(path: Path) -> None:
    """
    Complain about an output that can't be written before any frame is.

    Raises:
        ValueError: The suffix is none of .mp4, .gif and (for a folder of png) none at all.
        FileExistsError: A folder that isn't empty, or a file where a folder is to be.
    """
    if path.suffix.lower() not in (".mp4", ".gif", ""):
        raise ValueError(f"{path}: expected a name that ends in .mp4 or .gif, or has no suffix for a folder of png")
    if path.is_dir() and (path.suffix or any(path.iterdir())):
        raise FileExistsError(f"{path} is a folder{'' if path.suffix else ' that is not empty'}: choose another output")
    if path.is_file() and not path.suffix:
        raise FileExistsError(f"{path} is a file: choose another name for the folder of png")


@contextlib.contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Callable[[np.ndarray, int], None]]:
    """
    Open a file or a folder for writing; it is there, and whole, once the block is left without an error.

    Args:
        path: As `check_output` has it.
        fps: Frames per second; without meaning for a folder.

    Yields:
        A function that takes a frame, (H, W, 3) uint8 RGB, and its number, which names its png (`00042.png`).
    """
    suffix = path.suffix.lower()
    with atomic_path(path) as temporary:
        if suffix:
            with _encode(temporary, Fraction(fps).limit_denominator(1001), suffix == ".gif") as write:
                yield write
        else:
            temporary.mkdir()
            yield lambda frame, number: Image.fromarray(frame).save(temporary / f"{number:05d}.png")


@contextlib.contextmanager
def _encode(path: Path, fps: Fraction, gif: bool) -> Iterator[Callable[[np.ndarray, int], None]]:
    av = _import_av()
    with av.open(str(path), "w", options={} if gif else {"movflags": "+faststart"}) as container:
        stream = container.add_stream("gif" if gif else "libx264", rate=fps)
        stream.pix_fmt = "pal8" if gif else "yuv420p"  # no other layout of H.264 plays everywhere
        if not gif:
            stream.options = {"crf": "18"}  # all but indistinguishable from the original
            codec = stream.codec_context
            codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
            codec.color_range = _LIMITED_RANGE

        def write(frame: np.ndarray, number: int) -> None:
            if gif:
                encoded = av.VideoFrame.from_ndarray(_quantize(frame), format="pal8")
            else:
                # yuv420p has half the resolution for colour: an odd last row or column is repeated.
                frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
                encoded = av.VideoFrame.from_ndarray(frame, format="rgb24")
                encoded = encoded.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE)
            if not stream.codec_context.is_open:
                stream.width, stream.height = encoded.width, encoded.height
            container.mux(stream.encode(encoded))

        yield write
        container.mux(stream.encode())


def _quantize(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a frame to 256 colours, exactly if it has no more: indices (H, W), and ARGB colours (256, 4)."""
    image = Image.fromarray(frame)
    colors = image.getcolors(256)
    if colors is None:
        image = image.quantize(256, dither=Image.Dither.NONE)
        table = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        indices = np.asarray(image)
    else:
        table = np.array([color for _, color in colors], dtype=np.uint8)
        codes = np.dot(frame.astype(np.int64), [65536, 256, 1])
        table_codes = np.dot(table.astype(np.int64), [65536, 256, 1])
        order = table_codes.argsort()
        indices = order[np.searchsorted(table_codes, codes, sorter=order)].astype(np.uint8)
    palette = np.zeros((256, 4), dtype=np.uint8)
    palette[:, 0] = 255
    palette[: len(table), 1:] = table
    return indices, palette


__all__ = ["check_output", "video_writer"]

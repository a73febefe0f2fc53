"""Write frames one at a time: mp4 and gif through PyAV, folders of png through Pillow."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import atomic_path
from .reader import import_av

# FFmpeg's numbers for BT.709 in limited range: the standard of HD video, and what players assume by default.
_BT709, _LIMITED_RANGE = 1, 1


def check_output(path: Path) -> None:
    """
    Fail before the first frame if the output cannot be written.

    Raises:
        ValueError: if the suffix is neither .mp4 nor .gif nor, for a folder of png, missing.
        FileExistsError: if `path` is a folder with content, or a file where a folder is to be written.
    """
    if path.suffix.lower() not in (".mp4", ".gif", ""):
        raise ValueError(f"{path}: expected a name that ends in .mp4 or .gif, or has no suffix for a folder of png")
    if path.is_dir() and (path.suffix or any(path.iterdir())):
        raise FileExistsError(f"{path} is a folder{'' if path.suffix else ' that is not empty'}: choose another output")
    if path.is_file() and not path.suffix:
        raise FileExistsError(f"{path} is a file: choose another name for the folder of png")


@contextmanager
def video_writer(path: Path, fps: float) -> Generator[Callable[[np.ndarray, int], None]]:
    """
    Open a file or a folder for writing. It appears, complete, when the block ends without an error.

    Args:
        path: An .mp4 (H.264) or .gif file, or a folder of png without a suffix.
        fps: Frames per second; ignored for a folder.

    Yields:
        A function that takes a frame, uint8 RGB (H, W, 3), and its number, which names its png (`00042.png`).
    """
    suffix = path.suffix.lower()
    with atomic_path(path) as temporary:
        if suffix:
            with _encode(temporary, Fraction(fps).limit_denominator(1001), suffix == ".gif") as write:
                yield write
        else:
            temporary.mkdir()
            yield lambda frame, number: Image.fromarray(frame).save(temporary / f"{number:05d}.png")


@contextmanager
def _encode(path: Path, fps: Fraction, gif: bool) -> Generator[Callable[[np.ndarray, int], None]]:
    av = import_av()
    with av.open(str(path), "w", options={} if gif else {"movflags": "+faststart"}) as container:
        stream = container.add_stream("gif" if gif else "libx264", rate=fps)
        stream.pix_fmt = "pal8" if gif else "yuv420p"  # the only layout of H.264 that plays everywhere
        if not gif:
            stream.options = {"crf": "18"}  # visually lossless
            codec = stream.codec_context
            codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
            codec.color_range = _LIMITED_RANGE

        def write(frame: np.ndarray, number: int) -> None:
            if gif:
                encoded = av.VideoFrame.from_ndarray(_quantize(frame), format="pal8")
            else:
                # yuv420p stores color at half the resolution: repeat the last row or column of odd sizes.
                if frame.shape[0] % 2 or frame.shape[1] % 2:
                    frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
                encoded = av.VideoFrame.from_ndarray(frame, format="rgb24")
                encoded = encoded.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE)
            if not stream.codec_context.is_open:
                stream.width, stream.height = encoded.width, encoded.height
            container.mux(stream.encode(encoded))

        yield write
        container.mux(stream.encode())


def _quantize(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a frame to 256 colors, exactly if it has no more: uint8 indices (H, W) and ARGB colors (256, 4)."""
    image = Image.fromarray(frame)
    if image.getcolors(256) is None:
        image = image.quantize(256, dither=Image.Dither.NONE)
        table = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        indices = np.asarray(image)
    else:
        codes, indices = np.unique(frame.astype(np.int64) @ [65536, 256, 1], return_inverse=True)
        table = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
        indices = indices.reshape(frame.shape[:2]).astype(np.uint8)
    palette = np.zeros((256, 4), dtype=np.uint8)
    palette[:, 0] = 255
    palette[: len(table), 1:] = table
    return indices, palette


__all__ = ["check_output", "video_writer"]

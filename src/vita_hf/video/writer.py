"""Write frames one at a time: mp4 and gif through PyAV, folders of png through Pillow."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import atomic_path
from .reader import import_av

# FFmpeg's numbers for BT.709 in limited range: the standard of HD video, and what players assume by default.
_BT709, _LIMITED_RANGE = 1, 1
# Ticks per second, in which the frame rates of film and television are whole numbers; of a gif by its format.
_TICKS, _GIF_TICKS = 120_000, 100
_MAX_RATE, _MAX_TICKS = 1000, 1 << 53


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


Write = Callable[..., None]


@contextmanager
def video_writer(path: Path, fps: float, open_sound: Callable[[], Any] | None = None) -> Generator[Write]:
    """
    Open a file or a folder for writing. It appears, complete, when the block ends without an error.

    Args:
        path: An .mp4 (H.264) or .gif file, or a folder of png without a suffix.
        fps: Frames per second, where frames have no times.
        open_sound: Opens the `av` container of a video whose sound is to accompany the frames, if it has any. Times are
            then counted from its start. Only for .mp4.

    Yields:
        A function that takes a frame, uint8 RGB (H, W, 3), its number, which names its png (`00042.png`), and when it
        is shown, in seconds; by default, frames follow each other at `fps`. The file starts with the first frame.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if a video file cannot have this rate, or frames at such times.
    """
    suffix = path.suffix.lower()
    if suffix and not 1 / _MAX_RATE <= fps <= _MAX_RATE:
        raise ValueError(f"expected a rate of 1/{_MAX_RATE} to {_MAX_RATE} frames per second, got {fps:g}")
    with atomic_path(path) as temporary:
        if suffix:
            with _encode(path, temporary, Fraction(fps).limit_denominator(1001), open_sound) as write:
                yield write
        else:
            temporary.mkdir()
            yield lambda frame, number, time=None: Image.fromarray(frame).save(temporary / f"{number:05d}.png")


@contextmanager
def _encode(path: Path, temporary: Path, fps: Fraction, open_sound: Callable[[], Any] | None) -> Generator[Write]:
    av, gif = import_av(), path.suffix.lower() == ".gif"
    from .sound import SoundCopy

    with ExitStack() as stack:
        try:
            container = stack.enter_context(
                av.open(str(temporary), "w", options={} if gif else {"movflags": "+faststart"})
            )
            stream = container.add_stream("gif" if gif else "libx264", rate=fps)
            stream.codec_context.time_base = Fraction(1, _GIF_TICKS if gif else _TICKS)
            stream.pix_fmt = "pal8" if gif else "yuv420p"  # the only layout of H.264 that plays everywhere
            if not gif:
                # Visually lossless. With B-frames, the file would seem to end before its last frames.
                stream.options = {"crf": "18", "bf": "0"}
                codec = stream.codec_context
                codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
                codec.color_range = _LIMITED_RANGE
            source = None if open_sound is None else open_sound()
            sound = None if source is None else stack.enter_context(SoundCopy(source, container))
            waiting: list[Any] = []  # the last packet, until it is known whether another one follows
            clock = _Clock(stream.codec_context.time_base, fps)

            def write(frame: np.ndarray, number: int, time: float | None = None) -> None:
                encoded = _to_gif(frame) if gif else _to_yuv(frame)
                if not stream.codec_context.is_open:
                    stream.width, stream.height = encoded.width, encoded.height
                encoded.pts, encoded.time_base = clock.stamp(time), clock.tick
                waiting.extend(stream.encode(encoded))
                container.mux(waiting[:-1])
                del waiting[:-1]
                if sound is not None:
                    sound.copy(clock.first, clock.now)

            yield write
            for packet in [*waiting, *stream.encode()]:
                packet.duration = clock.last_step  # the file ends when the last frame has been shown
                container.mux(packet)
            if sound is not None:
                sound.copy(clock.first, clock.end)
                sound.finish()
        except av.error.FFmpegError as error:
            raise OSError(f"{path} cannot be written: {error.strerror}") from error


class _Clock:
    """Time stamps of frames, in ticks from the first."""

    def __init__(self, tick: Fraction, fps: Fraction):
        self.tick, self.first, self.last_step = tick, 0.0, max(1, round(1 / fps / tick))
        self._fps, self._count, self._ticks = fps, 0, 0

    def stamp(self, time: float | None) -> int:
        """Return the next frame's time stamp; they always increase."""
        if self._count == 0:
            self.first = time or 0.0
        ticks = round((self._count / self._fps if time is None else Fraction(time - self.first)) / self.tick)
        if abs(ticks) > _MAX_TICKS:
            raise ValueError(f"a video file cannot have a frame at {self.first if time is None else time:g} s")
        if self._count:
            ticks = max(ticks, self._ticks + 1)
            self.last_step = ticks - self._ticks
        self._count, self._ticks = self._count + 1, ticks
        return ticks

    @property
    def now(self) -> float:
        """Time of the last frame, in seconds as given."""
        return self.first + float(self._ticks * self.tick)

    @property
    def end(self) -> float:
        return self.now + float(self.last_step * self.tick)


def _to_yuv(frame: np.ndarray) -> Any:
    """Convert a frame for H.264, which stores color at half the resolution: odd rows and columns are repeated."""
    from av import VideoFrame

    if frame.shape[0] % 2 or frame.shape[1] % 2:
        frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
    encoded = VideoFrame.from_ndarray(frame, format="rgb24")
    return encoded.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE)


def _to_gif(frame: np.ndarray) -> Any:
    from av import VideoFrame

    return VideoFrame.from_ndarray(_quantize(frame), format="pal8")  # ty: ignore[invalid-argument-type] - takes a pair


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

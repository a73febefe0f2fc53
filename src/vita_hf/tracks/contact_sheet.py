"""A whole video in one picture: some of its frames, and a timeline that shows when each track is visible."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..files import atomic_path
from ..video.sources import open_video
from .base import Tracks
from .clock import format_clock
from .painter import Painter, load_font
from .palette import track_color
from .result_frames import read_result_frames

_BACKGROUND, _INK, _FAINT = (255, 255, 255), (32, 32, 32), (226, 226, 226)
_FONT_SIZE, _GAP, _ROW = 14, 12, 24


def plot(
    result: Tracks,
    video: Any,
    path: str | os.PathLike | None = None,
    *,
    num_frames: int = 8,
    columns: int = 4,
    width: int = 1280,
    decoder: str = "pyav",
) -> Image.Image:
    """
    Draw a contact sheet: evenly spaced frames with their tracks, above a timeline.

    Args:
        result: The tracks.
        video: The video they were found in: a file, a folder of images, an address, or frames.
        path: An image file to write the picture to, of any format that Pillow knows.
        num_frames: The maximum number of frames to show, from the first to the last.
        columns: Number of frames side by side.
        width: Width of the picture in pixels, at least 320.
        decoder: Decoder of video files, "pyav" or "torchcodec".

    Raises:
        ValueError: if the video lacks a frame or its frames have another size than the masks, or if an argument is out
            of range.

    Example:
    ```python
    >>> import numpy as np
    >>> from transformers import pipeline
    >>> from vita_hf.data.synthetic import SyntheticVideo
    >>> from vita_hf.inference.loading import SHIPPED_MODEL

    >>> video = np.stack([image for image, _ in SyntheticVideo(2, 0, length=4)])
    >>> result = pipeline("video-instance-segmentation", model=str(SHIPPED_MODEL), device="cpu")(video)
    >>> result.plot(video, width=640).width
    640

    ```
    """
    sheet = ContactSheet(result, path, num_frames=num_frames, columns=columns, width=width)
    for frame in read_result_frames(result, open_video(video, decoder=decoder), sheet.chosen):
        sheet.add(frame.image, frame.index)
    sheet.save()
    return sheet.picture


class ContactSheet:
    """
    The picture that `plot` draws, frame by frame, so that it can share decoded frames with other uses.

    Attributes:
        chosen: Numbers of the result's frames that are shown.
        picture: The picture, complete once all chosen frames have been added.
    """

    def __init__(
        self,
        result: Tracks,
        path: str | os.PathLike | None = None,
        *,
        num_frames: int = 8,
        columns: int = 4,
        width: int = 1280,
    ):
        if path is not None and Path(path).suffix.lower() not in Image.registered_extensions():
            raise ValueError(f"{path}: expected the name of an image file, for example one that ends in .png")
        if num_frames < 1 or columns < 1 or width < 320:
            raise ValueError(
                "expected num_frames and columns of at least 1 and a width of at least 320, got "
                f"num_frames={num_frames}, columns={columns}, width={width}"
            )
        self.result = result
        self.path = path
        self.chosen = _evenly_spaced(_positions(result), num_frames)
        self._painter = Painter(result)
        self._columns = min(columns, len(self.chosen))
        self._cell = (width - (self._columns + 1) * _GAP) // self._columns
        height, length = result.size
        # Very tall frames are limited in height; small frames are enlarged to make labels readable.
        scale = min(self._cell / length, 1.5 * self._cell / height)
        self._size = (max(1, round(height * scale)), max(1, round(length * scale)))
        time_line = _draw_time_line(result, self.chosen, width)
        grid_height = _GAP + -(-len(self.chosen) // self._columns) * self._step
        self.picture = Image.new("RGB", (width, grid_height + time_line.height), _BACKGROUND)
        self.picture.paste(time_line, (0, grid_height))

    @property
    def _step(self) -> int:
        return self._size[0] + _ROW + _GAP

    def add(self, image: np.ndarray, frame: int) -> None:
        """Draw frame number `frame` of the result, uint8 RGB (h, w, 3), if it is one of the `chosen`."""
        if frame not in self.chosen:
            return
        row, column = divmod(self.chosen.index(frame), self._columns)
        x = _GAP + column * (self._cell + _GAP) + (self._cell - self._size[1]) // 2
        y = _GAP + row * self._step
        self.picture.paste(Image.fromarray(self._painter.draw(image, frame, self._size)), (x, y))
        caption, times = f"frame {self.result.frame_numbers[frame]}", self.result.timestamps
        if times:
            caption = f"{format_clock(times[frame], 2)} · {caption}"
        pen, font = ImageDraw.Draw(self.picture), load_font(_FONT_SIZE)
        pen.text((x, y + self._size[0] + _ROW // 2), caption, _INK, font, anchor="lm")

    def save(self) -> None:
        """Write the picture to `path`, if there is one."""
        if self.path is not None:
            with atomic_path(self.path) as temporary:
                self.picture.save(temporary)


def _positions(result: Tracks) -> np.ndarray:
    """Place frames along a line: float array (T + 1,) with their times, or numbers, and the end of the last frame."""
    times = result.timestamps
    starts = np.arange(result.num_frames, dtype=float) if times is None else np.array(times)
    last = starts[-1] - starts[-2] if len(starts) > 1 else 1.0
    return np.append(starts, starts[-1] + last) - starts[0]


def _evenly_spaced(positions: np.ndarray, count: int) -> list[int]:
    """Choose at most `count` frames, the first and the last among them, that are nearest to equal distances."""
    starts = positions[:-1]
    wanted = np.linspace(0, starts[-1], count)
    return np.unique(np.abs(starts - wanted[:, None]).argmin(1)).tolist()


@dataclass
class _Axis:
    """Places of the timeline's frames: frame t covers the pixels from `edge(t)` to `edge(t + 1)`."""

    left: int
    right: int
    positions: np.ndarray

    def edge(self, frame: int) -> int:
        return self.left + round(self.positions[frame] * (self.right - self.left) / self.positions[-1])

    def center(self, frame: int) -> int:
        return (self.edge(frame) + self.edge(frame + 1)) // 2


def _draw_time_line(result: Tracks, chosen: list[int], width: int) -> Image.Image:
    """Draw one row per track, with a bar wherever it has pixels, and thin lines at the `chosen` frames."""
    count = len(result)
    picture = Image.new("RGB", (width, (max(count, 1) + 1) * _ROW + 2 * _GAP), _BACKGROUND)
    pen, font = ImageDraw.Draw(picture), load_font(_FONT_SIZE)
    if not count:
        pen.text((_GAP, _GAP + _ROW // 2), "no tracks", _INK, font, anchor="lm")
        return picture
    columns = zip(result.track_ids.tolist(), result.label_names, result.scores.tolist())
    names = [_shorten(f"#{track} {name} {score:.2f}", width // 3, pen, font) for track, name, score in columns]
    left = _GAP + _ROW + int(max(pen.textlength(name, font) for name in names)) + _GAP
    axis = _Axis(left, width - 2 * _GAP, _positions(result))
    bottom = _GAP + count * _ROW

    for frame in chosen:
        pen.line((axis.center(frame), _GAP, axis.center(frame), bottom), _FAINT)
    for row, (name, visible) in enumerate(zip(names, (result.areas > 0).numpy())):
        color, y = track_color(int(result.track_ids[row])), _GAP + row * _ROW
        pen.rectangle((_GAP, y + 5, _GAP + _ROW - 10, y + _ROW - 6), color, _INK)
        pen.text((_GAP + _ROW, y + _ROW // 2), name, _INK, font, anchor="lm")
        for start, stop in _spans(visible):
            # Colors close to white need an outline; a span that is too short to see is widened to a line.
            x0, x1 = axis.edge(start), axis.edge(stop) - 1
            pen.rectangle((x0, y + 5, max(x0, x1), y + _ROW - 6), color, _INK if x1 - x0 > 3 else color)
    _draw_ticks(result, axis, bottom, pen, font)
    return picture


def _draw_ticks(result: Tracks, axis: _Axis, top: int, pen: ImageDraw.ImageDraw, font: Any) -> None:
    """Label five points of the timeline, with times if the frame rate is known, else with frame numbers."""
    pen.line((axis.left, top, axis.right, top), _INK)
    times, numbers = result.timestamps, result.frame_numbers
    end = -1.0
    for frame in _evenly_spaced(axis.positions, 5):
        x = axis.center(frame)
        text = format_clock(times[frame], 1 if times[-1] < 60 else 0) if times else str(numbers[frame])
        half = pen.textlength(text, font) / 2
        pen.line((x, top, x, top + 4), _INK)
        if x - half > end:
            pen.text((x, top + 7), text, _INK, font, anchor="mt")
            end = x + half + _GAP
    if not times:
        pen.text((axis.left - _GAP, top + 7), "frame", _INK, font, anchor="rt")


def _spans(visible: np.ndarray) -> list[tuple[int, int]]:
    """Return start and stop of each run of True in a bool array."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], visible, [False]]).astype(np.int8)))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist()))


def _shorten(text: str, length: int, pen: ImageDraw.ImageDraw, font: Any) -> str:
    while pen.textlength(text, font) > length and len(text) > 2:
        text = text[:-2] + "…"
    return text


__all__ = ["ContactSheet", "plot"]

"""A whole video in one picture: some of its frames, and when each track is seen."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import atomic_path
from .drawing import Painter, ResultFrames, frame_numbers
from .instances import VideoInstances
from .palette import track_color

_BACKGROUND, _INK, _FAINT = (255, 255, 255), (32, 32, 32), (226, 226, 226)
_FONT_SIZE, _GAP, _ROW = 14, 12, 24


def plot(
    result: VideoInstances,
    video,
    path: str | os.PathLike | None = None,
    *,
    num_frames: int = 8,
    columns: int = 4,
    width: int = 1280,
    decoder: str = "pyav",
) -> Image.Image:
    """
    Draw a contact sheet: evenly spaced frames with the tracks over them, and a time line of which track is seen when.

    Args:
        result: The tracks.
        video: What they were found in, as for [`vita_hf.tracks.drawing.render`].
        path: Where to write the picture as well, as an image file of any kind that Pillow knows.
        num_frames: The most frames to show; the first and the last are among them.
        columns: Frames beside each other.
        width: Width of the picture in pixels.
        decoder: "pyav" or "torchcodec".

    Raises:
        ValueError: The video doesn't have the result's frames, or frames of another size; a bad argument.
    """
    if num_frames < 1 or columns < 1 or width < 320:
        raise ValueError(
            "expected num_frames and columns of at least 1 and a width of at least 320, got "
            f"num_frames={num_frames}, columns={columns}, width={width}"
        )
    if path is not None and Path(path).suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{path}: expected the name of an image file, for example one that ends in .png")
    chosen = np.unique(np.linspace(0, result.num_frames - 1, num_frames).round().astype(int)).tolist()
    sheet = _stack(
        _frame_grid(result, ResultFrames(result, video, decoder, chosen), chosen, columns, width),
        _time_line(result, chosen, width),
    )
    if path is not None:
        with atomic_path(path) as temporary:
            sheet.save(temporary)
    return sheet


def _frame_grid(result: VideoInstances, frames: ResultFrames, chosen: list[int], columns: int, width: int):
    """The frames `chosen`, with what time it is beneath each."""
    columns = min(columns, len(chosen))
    cell = (width - (columns + 1) * _GAP) // columns
    height, length = result.size
    # Frames far higher than wide don't make the sheet endless; small ones are enlarged, so that labels can be read.
    scale = min(cell / length, 1.5 * cell / height)
    size = (max(1, round(height * scale)), max(1, round(length * scale)))
    step = size[0] + _ROW + _GAP
    grid = Image.new("RGB", (width, _GAP + -(-len(chosen) // columns) * step), _BACKGROUND)
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(_FONT_SIZE)
    painter = Painter(result)
    for position, (frame, image) in enumerate(zip(chosen, frames)):
        x = _GAP + position % columns * (cell + _GAP) + (cell - size[1]) // 2
        y = _GAP + position // columns * step
        grid.paste(Image.fromarray(painter.draw(image, frame, size)), (x, y))
        pen.text((x, y + size[0] + _ROW // 2), _moment(result, frame), _INK, font, anchor="lm")
    return grid


def _moment(result: VideoInstances, frame: int) -> str:
    number = f"frame {frame_numbers(result)[frame]}"
    times = result.timestamps
    return f"{_clock(times[frame], 2)} · {number}" if times else number


def _clock(seconds: float, digits: int) -> str:
    """Minutes and seconds, with hours where there are any: 1:05.50."""
    ticks = round(seconds * 10**digits)
    minutes, ticks = divmod(ticks, 60 * 10**digits)
    seconds = f"{ticks / 10**digits:0{3 + digits if digits else 2}.{digits}f}"
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds}" if minutes >= 60 else f"{minutes}:{seconds}"


@dataclass
class _Axis:
    """Where the time line's frames are: frame t covers the pixels from `edge(t)` to `edge(t + 1)`."""

    left: int
    right: int
    num_frames: int

    def edge(self, frame: int) -> int:
        return self.left + round(frame * (self.right - self.left) / self.num_frames)


def _time_line(result: VideoInstances, chosen: list[int], width: int) -> Image.Image:
    """One row a track: its colour, id, label and score, and a bar where it has pixels; thin lines at frames shown."""
    count = len(result)
    picture = Image.new("RGB", (width, (max(count, 1) + 1) * _ROW + 2 * _GAP), _BACKGROUND)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT_SIZE)
    if not count:
        pen.text((_GAP, _GAP + _ROW // 2), "no tracks", _INK, font, anchor="lm")
        return picture
    columns = zip(result.track_ids.tolist(), result.label_names, result.scores.tolist())
    names = [f"#{track} {name} {score:.2f}" for track, name, score in columns]
    names = [_shortened(name, width // 3, pen, font) for name in names]
    left = _GAP + _ROW + int(max(pen.textlength(name, font) for name in names)) + _GAP
    axis = _Axis(left, width - 2 * _GAP, result.num_frames)
    bottom = _GAP + count * _ROW

    for frame in chosen:
        x = (axis.edge(frame) + axis.edge(frame + 1)) // 2
        pen.line((x, _GAP, x, bottom), _FAINT)
    for row, (name, seen) in enumerate(zip(names, (result.areas > 0).numpy())):
        color, y = track_color(int(result.track_ids[row])), _GAP + row * _ROW
        pen.rectangle((_GAP, y + 5, _GAP + _ROW - 10, y + _ROW - 6), color, _INK)
        pen.text((_GAP + _ROW, y + _ROW // 2), name, _INK, font, anchor="lm")
        for start, stop in _runs(seen):
            # The outline is for colours that are nearly the paper's; a moment too short to see is widened to a line.
            x0, x1 = axis.edge(start), axis.edge(stop) - 1
            pen.rectangle((x0, y + 5, max(x0, x1), y + _ROW - 6), color, _INK if x1 - x0 > 3 else color)
    _ticks(result, axis, bottom, pen, font)
    return picture


def _ticks(result: VideoInstances, axis: _Axis, top: int, pen: ImageDraw.ImageDraw, font) -> None:
    """Five moments along the time line, in minutes and seconds or as frames' numbers."""
    pen.line((axis.left, top, axis.right, top), _INK)
    times, numbers = result.timestamps, frame_numbers(result)
    end = -1.0
    for frame in np.unique(np.linspace(0, result.num_frames - 1, 5).round().astype(int)).tolist():
        x = (axis.edge(frame) + axis.edge(frame + 1)) // 2
        text = _clock(times[frame], 1 if times[-1] < 60 else 0) if times else str(numbers[frame])
        half = pen.textlength(text, font) / 2
        pen.line((x, top, x, top + 4), _INK)
        if x - half > end:
            pen.text((x, top + 7), text, _INK, font, anchor="mt")
            end = x + half + _GAP
    if not times:
        pen.text((axis.left - _GAP, top + 7), "frame", _INK, font, anchor="rt")


def _runs(seen: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of each run of True in a bool array."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist()))


def _shortened(text: str, length: int, pen: ImageDraw.ImageDraw, font) -> str:
    while pen.textlength(text, font) > length and len(text) > 2:
        text = text[:-2] + "…"
    return text


def _stack(*pictures: Image.Image) -> Image.Image:
    """Put pictures of the same width below each other."""
    sheet = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)), _BACKGROUND)
    y = 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height
    return sheet


__all__ = ["plot"]

"""Tracks drawn over the frames they were found in."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from tqdm.auto import tqdm

from ..image_processing_vita import _to_channels_first
from ..video.sources import open_video, split_videos
from ..video.writer import check_output, video_writer
from .instances import VideoInstances
from .palette import text_color, track_color


def render(
    result: VideoInstances,
    video,
    path: str | os.PathLike,
    *,
    alpha: float = 0.5,
    contours: bool = True,
    labels: bool = True,
    scale: float = 1.0,
    fps: float | None = None,
    decoder: str = "pyav",
    progress: bool = False,
) -> Path:
    """
    Draw the tracks over the video's frames and write them, one frame in memory at a time.

    Args:
        result: The tracks; where they overlap, the one with the highest score is drawn.
        video: What they were found in: a video file, a folder of frames, or frames, as [`VitaVideoProcessor`] takes
            one video. Of a video that was thinned out, `result.frame_indices` are drawn.
        path: Where to write: `.mp4` (H.264, plays everywhere; an odd last row or column is doubled), `.gif` (256
            colours a frame), or a folder of `00000.png` …, numbered like the video's frames. Whole or not there.
        alpha: Opacity of the masks, 0 … 1.
        contours: Whether to draw the masks' outlines.
        labels: Whether to write track ids, labels and scores.
        scale: Size of the pictures relative to the video's: more for labels in small videos, less for small files.
        fps: Frames per second of the file; by default those of the video, less what was thinned out, or 10 if unknown.
        decoder: "pyav" or "torchcodec".
        progress: Whether to show a progress bar.

    Returns:
        `path`.

    Raises:
        ValueError: The video doesn't have the result's frames, or frames of another size; an unusable argument.
        FileExistsError: `path` is a folder with something in it.
        ImportError: A file is to be read or written and `av` is missing.
    """
    path = Path(path)
    check_output(path)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    for name, value in (("fps", fps), ("scale", scale)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    painter = Painter(result, alpha, contours, labels)
    source = ResultFrames(result, video, decoder)
    numbers = frame_numbers(result)
    size = tuple(max(1, round(scale * side)) for side in result.size)
    with video_writer(path, fps or _sampled_fps(result, source.fps) or 10) as write:
        frames = tqdm(source, desc=path.name, unit="frame", disable=not progress)
        for frame, (image, number) in enumerate(zip(frames, numbers)):
            write(painter.draw(image, frame, size), number)
    return path


def frame_numbers(result: VideoInstances) -> Sequence[int]:
    """Which of its video's frames each of a result's frames is."""
    return range(result.num_frames) if result.frame_indices is None else [int(index) for index in result.frame_indices]


class ResultFrames:
    """
    The frames of a result, read from its video.

    Args:
        result: Says which frames, and how large they are.
        video: As for `render`.
        decoder: As for `render`.
        chosen: Only these of the result's frames, in increasing order.

    Attributes:
        fps: Frames per second of the video, if it says so.

    Yields:
        (h, w, 3) uint8 RGB arrays.

    Raises:
        ValueError: While iterating: the video has too few frames, or one of another size than the masks'.
    """

    def __init__(self, result: VideoInstances, video, decoder: str = "pyav", chosen: Sequence[int] | None = None):
        self.name = str(video) if isinstance(video, str | os.PathLike) else "the video"
        numbers = frame_numbers(result)
        self.numbers = list(numbers) if chosen is None else [numbers[frame] for frame in chosen]
        self.size = result.size
        if not isinstance(video, Iterator):
            videos = split_videos(video)
            if len(videos) > 1:
                raise ValueError(f"expected the one video that the tracks were found in, got {len(videos)}")
            video = videos[0]
        self.reader = open_video(video, self.name, decoder)
        self.fps = self.reader.fps

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        try:
            for frame in self.reader.frames(self.numbers):
                yield self._to_rgb(frame, f"{self.name}, frame {self.numbers[count]}")
                count += 1
                if count == len(self.numbers):
                    return  # the rest of the file need not be decoded
        except IndexError:  # what lists raise where files just end
            pass
        if count < len(self.numbers):
            raise ValueError(f"{self.name} has no frame {self.numbers[count]}, which the result has masks for")

    def _to_rgb(self, frame, where: str) -> np.ndarray:
        image = _to_channels_first(frame, where, None, True)
        if image.is_floating_point():
            image = (image * 255 if image.max() <= 1 else image).round().clamp(0, 255).to(torch.uint8)
        if tuple(image.shape[1:]) != tuple(self.size):
            expected, got = ("×".join(map(str, size)) for size in (self.size, image.shape[1:]))
            raise ValueError(f"{where}: expected {expected} pixels like the masks, got {got}")
        return image.permute(1, 2, 0).contiguous().numpy()


class Painter:
    """
    Draws a result's tracks over its frames.

    Args:
        result: The tracks.
        alpha: Opacity of the masks.
        contours: Whether to draw the masks' outlines.
        labels: Whether to write track ids, labels and scores.
    """

    def __init__(self, result: VideoInstances, alpha: float = 0.5, contours: bool = True, labels: bool = True):
        self.result = result
        self.alpha = alpha
        self.contours = contours
        self.labels = labels
        ids, scores = result.track_ids.tolist(), result.scores.tolist()
        self.colors = np.array([track_color(track) for track in ids], dtype=np.uint8).reshape(-1, 3)
        # The longest that fits is written.
        self.texts = [
            (f"#{track} {name} {score:.2f}", f"#{track} {name}", f"#{track}")
            for track, name, score in zip(ids, result.label_names, scores)
        ]
        self.order = result.scores.argsort(descending=True, stable=True).tolist()

    def draw(self, image: np.ndarray, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """
        Draw one frame.

        Args:
            image: (h, w, 3) uint8 RGB; it is left as it is.
            frame: Which of the result's frames it is.
            size: Height and width of the picture, if not the frame's.

        Returns:
            The picture, (h, w, 3) or (*size, 3), uint8.
        """
        rows = self._rows(frame)
        if size not in (None, image.shape[:2]):
            image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))
            rows = np.asarray(Image.fromarray(rows).resize(size[::-1], Image.Resampling.NEAREST))
        image = image.copy()
        pixels, flat = image.reshape(-1, 3), rows.reshape(-1)
        covered = np.flatnonzero(flat >= 0)
        colors = self.colors[flat[covered]]
        pixels[covered] = np.rint(pixels[covered] * np.float32(1 - self.alpha) + colors * np.float32(self.alpha))
        if self.contours:
            edges = covered[_is_edge(rows, max(1, round(min(rows.shape) / 240))).reshape(-1)[covered]]
            pixels[edges] = self.colors[flat[edges]]
        return self._write_labels(image, rows) if self.labels else image

    def _rows(self, frame: int) -> np.ndarray:
        """Which of the tracks is seen at each pixel: int32 (h, w), -1 for none."""
        masks = self.result.masks_at(frame).numpy()
        rows = np.full(masks.shape[1:], -1, dtype=np.int32)
        for row in reversed(self.order):
            rows[masks[row]] = row
        return rows

    def _write_labels(self, image: np.ndarray, rows: np.ndarray) -> np.ndarray:
        height, width = rows.shape
        font_size = min(48, max(11, round(min(height, width) / 26)))
        font = ImageFont.load_default(font_size)
        pad = max(3, font_size // 3)
        line = font_size + pad
        picture = Image.fromarray(image)
        pen = ImageDraw.Draw(picture)
        places = ndimage.find_objects(rows + 1, max_label=len(self.result))
        centers = _mean_columns(rows, len(self.result))
        tags: list[tuple[tuple[int, int, int, int], int, str]] = []
        for row in self.order:
            if places[row] is None:
                continue
            widths = [(text, round(pen.textlength(text, font)) + 2 * pad) for text in self.texts[row]]
            fitting = [(text, length) for text, length in widths if length <= width and line <= height]
            if not fitting:
                continue
            text, length = fitting[0]
            taken = [box for box, _, _ in tags]
            box = _free_place(places[row][0], centers[row], (length, line), (width, height), taken)
            tags.append((box, row, text))
        # Where there is no room for all, the best scores stay on top.
        for box, row, text in reversed(tags):
            color = tuple(int(value) for value in self.colors[row])
            pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=color)
            pen.text((box[0] + pad, box[1] + line // 2), text, text_color(color), font, anchor="lm")
        return np.asarray(picture)


def _is_edge(rows: np.ndarray, thickness: int) -> np.ndarray:
    """Pixels with a pixel of another track, or of none, at most `thickness` away up, down, left or right."""
    edge = np.zeros(rows.shape, dtype=bool)
    for distance in range(1, thickness + 1):
        differs = rows[distance:] != rows[:-distance]
        edge[distance:] |= differs
        edge[:-distance] |= differs
        differs = rows[:, distance:] != rows[:, :-distance]
        edge[:, distance:] |= differs
        edge[:, :-distance] |= differs
    return edge


def _mean_columns(rows: np.ndarray, count: int) -> np.ndarray:
    """The mean column of each track's pixels (count,); 0 for a track without any."""
    covered = rows[rows >= 0]
    columns = np.nonzero(rows >= 0)[1]
    pixels = np.bincount(covered, minlength=count)
    return np.bincount(covered, columns, minlength=count) / np.maximum(pixels, 1)


def _free_place(
    lines: slice,
    center: float,
    tag: tuple[int, int],
    frame: tuple[int, int],
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """
    Find room for a label next to its track, which covers the `lines` and has its mean column at `center`.

    Above the track is best, then below it, then inside it from the top down, then farther up and down; if all is taken,
    it stays above. `tag` and `frame` are (width, height).
    """
    width, height = tag
    left = round(min(max(center - width / 2, 0), frame[0] - width))
    above, below = lines.start - height, lines.stop
    tops = [above, below, *range(lines.start, below - height, height)]
    tops += [top for step in range(height, frame[1], height) for top in (above - step, below + step)]
    tops = [min(max(top, 0), frame[1] - height) for top in tops]
    boxes = [(left, top, left + width, top + height) for top in tops]
    free = (
        box
        for box in boxes
        if all(box[2] <= x0 or box[0] >= x1 or box[3] <= y0 or box[1] >= y1 for x0, y0, x1, y1 in taken)
    )
    return next(free, boxes[0])


def _sampled_fps(result: VideoInstances, video_fps: float | None) -> float | None:
    """Frames per second of the result's frames, thinned out as they are."""
    fps = result.fps or video_fps
    numbers = frame_numbers(result)
    if not fps or len(numbers) < 2:
        return fps
    return fps * (len(numbers) - 1) / (numbers[-1] - numbers[0])


__all__ = ["Painter", "ResultFrames", "frame_numbers", "render"]

"""Draw tracks over one frame: colored masks, outlines and labels."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .base import Tracks
from .palette import text_color, track_color

Box = tuple[int, int, int, int]  # x0, y0, x1, y1


class Painter:
    """
    Draw the tracks of a result over its frames.

    Args:
        result: The tracks. Where they overlap, the one with the best score is drawn.
        alpha: Opacity of the masks, 0 … 1.
        contours: Whether to draw the outlines of the masks.
        labels: Whether to write track ids, class names and scores.
    """

    def __init__(self, result: Tracks, alpha: float = 0.5, contours: bool = True, labels: bool = True):
        self.result = result
        self.alpha = alpha
        self.contours = contours
        self.labels = labels
        ids, scores = result.track_ids.tolist(), result.scores.tolist()
        self.colors = np.array([track_color(track) for track in ids], dtype=np.uint8).reshape(-1, 3)
        # The longest text that fits is written.
        self.texts = [
            (f"#{track} {name} {score:.2f}", f"#{track} {name}", f"#{track}")
            for track, name, score in zip(ids, result.label_names, scores)
        ]
        self.best_first = result.scores.argsort(descending=True, stable=True).tolist()

    def draw(self, image: np.ndarray, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """
        Draw one frame.

        Args:
            image: Uint8 RGB array (h, w, 3), which is not changed.
            frame: Number of the frame in the result.
            size: (height, width) of the picture; by default that of `image`.
        """
        track_map = self._track_map(frame)
        if size not in (None, image.shape[:2]):
            image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))
            track_map = np.asarray(Image.fromarray(track_map).resize(size[::-1], Image.Resampling.NEAREST))
        image = image.copy()
        pixels, tracks = image.reshape(-1, 3), track_map.reshape(-1)
        covered = np.flatnonzero(tracks >= 0)
        colors = self.colors[tracks[covered]]
        pixels[covered] = np.rint(pixels[covered] * np.float32(1 - self.alpha) + colors * np.float32(self.alpha))
        if self.contours:
            edges = covered[_is_edge(track_map, max(1, round(min(track_map.shape) / 240))).reshape(-1)[covered]]
            pixels[edges] = self.colors[tracks[edges]]
        return self._write_labels(image, track_map) if self.labels else image

    def _track_map(self, frame: int) -> np.ndarray:
        """Row of the track that is visible at each pixel: int32 (h, w), -1 for none."""
        masks = self.result.masks_at(frame).numpy()
        track_map = np.full(masks.shape[1:], -1, dtype=np.int32)
        for row in reversed(self.best_first):
            track_map[masks[row]] = row
        return track_map

    def _write_labels(self, image: np.ndarray, track_map: np.ndarray) -> np.ndarray:
        height, width = track_map.shape
        font_size = min(48, max(11, round(min(height, width) / 26)))
        font = ImageFont.load_default(font_size)
        pad = max(3, font_size // 3)
        line = font_size + pad
        picture = Image.fromarray(image)
        pen = ImageDraw.Draw(picture)
        extents = ndimage.find_objects(track_map + 1, max_label=len(self.result))
        centers = _mean_columns(track_map, len(self.result))
        labels: list[tuple[Box, int, str]] = []
        for row in self.best_first:
            if extents[row] is None:
                continue
            widths = [(text, round(pen.textlength(text, font)) + 2 * pad) for text in self.texts[row]]
            fitting = [(text, length) for text, length in widths if length <= width and line <= height]
            if not fitting:
                continue
            text, length = fitting[0]
            occupied = [box for box, _, _ in labels]
            box = _place_label(extents[row][0], centers[row], (length, line), (width, height), occupied)
            labels.append((box, row, text))
        # Where labels overlap for lack of room, the best scores stay on top.
        for box, row, text in reversed(labels):
            color = track_color(int(self.result.track_ids[row]))
            pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=color)
            pen.text((box[0] + pad, box[1] + line // 2), text, text_color(color), font, anchor="lm")
        return np.asarray(picture)


def _is_edge(track_map: np.ndarray, thickness: int) -> np.ndarray:
    """Find pixels at most `thickness` up, down, left or right of a pixel with another track or none."""
    edge = np.zeros(track_map.shape, dtype=bool)
    for view, edges in ((track_map, edge), (track_map.T, edge.T)):
        for distance in range(1, thickness + 1):
            differs = view[distance:] != view[:-distance]
            edges[distance:] |= differs
            edges[:-distance] |= differs
    return edge


def _mean_columns(track_map: np.ndarray, count: int) -> np.ndarray:
    """Compute the mean column of each track's pixels (count,); 0 for a track without pixels."""
    columns = np.nonzero(track_map >= 0)[1]
    tracks = track_map[track_map >= 0]
    return np.bincount(tracks, columns, minlength=count) / np.maximum(np.bincount(tracks, minlength=count), 1)


def _place_label(
    rows: slice, center: float, label_size: tuple[int, int], frame_size: tuple[int, int], occupied: list[Box]
) -> Box:
    """
    Find room for a label near its track: above it, else below it, inside it from the top, or farther up and down.

    The track covers the `rows` and has its mean column at `center`; sizes are (width, height). If all places are
    `occupied` by other labels, the label stays above its track.
    """
    width, height = label_size
    left = round(min(max(center - width / 2, 0), frame_size[0] - width))
    above, below = rows.start - height, rows.stop
    tops = [above, below, *range(rows.start, below - height, height)]
    tops += [top for step in range(height, frame_size[1], height) for top in (above - step, below + step)]
    tops = [min(max(top, 0), frame_size[1] - height) for top in tops]
    boxes = [(left, top, left + width, top + height) for top in tops]
    return next((box for box in boxes if not any(_overlap(box, other) for other in occupied)), boxes[0])


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

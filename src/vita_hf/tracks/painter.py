"""Draw tracks over one frame: colored masks, outlines and labels."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from .base import Tracks
from .palette import text_color, track_color

Box = tuple[int, int, int, int]  # x0, y0, x1, y1

load_font = cache(ImageFont.load_default)  # by size; loading takes milliseconds


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
        self.contours = contours
        self.labels = labels
        ids, scores = result.track_ids.tolist(), result.scores.tolist()
        self.colors = [track_color(track) for track in ids]
        # What each value of red, green and blue becomes under a track: tables for Pillow's `point`.
        colors = np.array(self.colors, dtype=np.uint8).reshape(-1, 3, 1)
        blended = np.rint(np.arange(256, dtype=np.uint8) * np.float32(1 - alpha) + colors * np.float32(alpha)).astype(
            np.uint8
        )
        self._tables: list[list[int]] = blended.reshape(-1, 3 * 256).tolist()
        # The longest text that fits is written.
        self.texts = [
            (f"#{track} {name} {score:.2f}", f"#{track} {name}", f"#{track}")
            for track, name, score in zip(ids, result.label_names, scores)
        ]
        self.best_first = result.scores.argsort(descending=True, stable=True).tolist()
        self._draw_label = cache(_draw_label)

    def draw(self, image: np.ndarray, frame: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """
        Draw one frame.

        Args:
            image: Uint8 RGB array (h, w, 3), which is not changed.
            frame: Number of the frame in the result.
            size: (height, width) of the picture; by default that of `image`.
        """
        picture, track_map = Image.fromarray(image), self._track_map(frame)
        if size not in (None, image.shape[:2]):
            picture = picture.resize(size[::-1], Image.Resampling.LANCZOS)
            track_map = np.asarray(Image.fromarray(track_map).resize(size[::-1], Image.Resampling.NEAREST))
        thickness = max(1, round(min(track_map.shape) / 240))
        shapes = _find_shapes(track_map, len(self.result), margin=thickness)
        for row, shape in shapes.items():
            corner, mask = (shape.left, shape.top), Image.fromarray(shape.mask)
            covered = picture.crop((*corner, shape.left + mask.width, shape.top + mask.height))
            picture.paste(covered.point(self._tables[row]), corner, mask)
            if self.contours:
                picture.paste(self.colors[row], corner, Image.fromarray(_edge(shape.mask, thickness)))
        if self.labels:
            self._write_labels(picture, shapes)
        return np.asarray(picture)

    def _track_map(self, frame: int) -> np.ndarray:
        """The track that is visible at each pixel: its row + 1, unsigned (h, w); 0 for none."""
        masks = self.result.masks_at(frame).numpy()
        # Column by column, like the masks that come from RLE.
        track_map = np.zeros(masks.shape[1:], dtype=np.min_scalar_type(len(masks)), order="F")
        for row in reversed(self.best_first):
            np.copyto(track_map, row + 1, where=masks[row])
        return np.ascontiguousarray(track_map)

    def _write_labels(self, picture: Image.Image, shapes: "dict[int, _Shape]") -> None:
        font_size = min(48, max(11, round(min(picture.size) / 26)))
        labels: list[tuple[Box, Image.Image]] = []
        for row in self.best_first:
            if row not in shapes:
                continue
            candidates = (self._draw_label(text, self.colors[row], font_size) for text in self.texts[row])
            fitting = (c for c in candidates if c.width <= picture.width and c.height <= picture.height)
            label = next(fitting, None)
            if label is None:
                continue
            shape, occupied = shapes[row], [box for box, _ in labels]
            labels.append((_place_label(shape.rows, shape.center, label.size, picture.size, occupied), label))
        # Where labels overlap for lack of room, the best scores stay on top.
        for box, label in reversed(labels):
            picture.paste(label, box)


@dataclass
class _Shape:
    """The visible part of a track: a mask (bool) whose upper left corner is at `left`, `top`."""

    left: int
    top: int
    mask: np.ndarray
    rows: slice  # from the first to the last with a pixel
    center: float  # mean column of the pixels


def _find_shapes(track_map: np.ndarray, count: int, margin: int) -> dict[int, _Shape]:
    """Find the visible tracks by their rows, each with a margin of so many pixels where the frame has room."""
    shapes = {}
    for row, extent in enumerate(ndimage.find_objects(track_map, max_label=count)):
        if extent is not None:
            top, left = (max(0, side.start - margin) for side in extent)
            mask = track_map[top : extent[0].stop + margin, left : extent[1].stop + margin] == row + 1
            in_columns = np.count_nonzero(mask, axis=0)
            center = left + in_columns @ np.arange(len(in_columns)) / in_columns.sum()
            shapes[row] = _Shape(left, top, mask, extent[0], center)
    return shapes


def _draw_label(text: str, color: tuple[int, int, int], font_size: int) -> Image.Image:
    """Write a text on a box of its track's color."""
    font = load_font(font_size)
    pad = max(3, font_size // 3)
    height = font_size + pad
    label = Image.new("RGB", (round(font.getlength(text)) + 2 * pad, height), color)
    ImageDraw.Draw(label).text((pad, height // 2), text, text_color(color), font, anchor="lm")
    return label


def _edge(mask: np.ndarray, thickness: int) -> np.ndarray:
    """Find the pixels of a mask with a pixel outside it at most `thickness` up, down, left or right."""
    edge = np.zeros(mask.shape, dtype=bool)
    for view, edges in ((mask, edge), (mask.T, edge.T)):
        for distance in range(1, thickness + 1):
            differs = view[distance:] ^ view[:-distance]
            edges[distance:] |= differs
            edges[:-distance] |= differs
    return edge & mask


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

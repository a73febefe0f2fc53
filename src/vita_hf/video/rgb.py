"""Decoded frames to RGB as a browser shows them: colors, HDR, the shape of pixels, rotation and mirroring."""

import struct
from fractions import Fraction
from typing import Any

import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

# FFmpeg's numbers of matrices, primaries and transfer functions.
_BT709, _BT601, _BT2020 = 1, 5, 9
_UNKNOWN_MATRICES = frozenset({0, 2, 3})  # of YUV: RGB, unspecified, reserved
_PQ, _HLG = 16, 18
_TO_SDR = "out_transfer=iec61966-2-1:out_primaries=bt709:out_color_matrix=bt709:out_range=full"

# A frame of more pixels (12K has 80 million) is damage, and would take too much memory.
MOST_PIXELS = 2**27
# Stranger pixels are errors in the file; closer to a square they are rounding errors.
_MOST_STRETCHED, _LEAST_STRETCHED = 8, 1.01


class RgbConverter:
    """
    Convert the frames of one video stream.

    - Without color tags, video of 720 lines and more is BT.709, smaller video BT.601, as browsers assume.
    - HDR (HLG, PQ) is mapped to sRGB: diffuse white becomes white, brighter light is clipped.
    - Pixels that are not square are stretched to squares, without losing rows or columns.
    - Frames are rotated and mirrored by their display matrix.
    - Later frames of another size are scaled to that of the first.
    """

    def __init__(self, pixel_aspect: Any):
        ratio = float(pixel_aspect or 1)
        stretched = _LEAST_STRETCHED <= max(ratio, 1 / ratio) <= _MOST_STRETCHED if ratio > 0 else False
        self._pixel_aspect = ratio if stretched else 1.0
        self._size: tuple[int, int] | None = None  # width, height
        self._reformatter = VideoReformatter()
        self._tone_mappers: dict[tuple, Graph] = {}

    def __call__(self, frame: Any) -> np.ndarray:
        """Convert an `av.VideoFrame`: uint8 (H, W, 3)."""
        if self._size is None:
            self._size = _displayed_size(frame.width, frame.height, self._pixel_aspect)
        width, height = self._size
        if not frame.format.is_rgb and frame.colorspace in _UNKNOWN_MATRICES:
            frame.colorspace = _guess_matrix(frame)
        rgb = self._to_sdr(frame) if frame.color_trc in (_PQ, _HLG) else frame
        scaling = Interpolation.BICUBIC if (frame.width, frame.height) != self._size else Interpolation.BILINEAR
        rgb = self._reformatter.reformat(rgb, width, height, "rgb24", interpolation=scaling)
        return _turn_upright(rgb.to_ndarray(), frame)

    def _to_sdr(self, frame: Any) -> Any:
        """Let libswscale map brightness and colors, which only a filter can ask it for in all versions of PyAV."""
        kind = (frame.width, frame.height, frame.format.name)
        if kind not in self._tone_mappers:
            graph = Graph()
            tick = Fraction(1, 1000)  # any will do: each frame is pulled before the next is pushed
            source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=tick)
            scale, rgb = graph.add("scale", _TO_SDR), graph.add("format", "pix_fmts=rgb24")
            graph.link_nodes(source, scale, rgb, graph.add("buffersink")).configure()
            self._tone_mappers[kind] = graph
        graph = self._tone_mappers[kind]
        graph.push(frame)
        return graph.pull()


def _guess_matrix(frame: Any) -> int:
    """Choose the matrix from YUV to RGB where the file names none: FFmpeg's number."""
    if frame.color_primaries == _BT2020:
        return _BT2020
    return _BT709 if frame.height >= 720 else _BT601


def _displayed_size(width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
    if width * height * max(pixel_aspect, 1 / pixel_aspect) > MOST_PIXELS:
        return width, height
    if pixel_aspect >= 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def _turn_upright(image: np.ndarray, frame: Any) -> np.ndarray:
    """Apply the display matrix, rounded to quarters and mirrorings."""
    try:
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # beside other data, which this version of PyAV does not know
        return np.rot90(image, k=round(frame.rotation / 90))
    if matrix is None:
        return image
    # The point (x, y) is shown at (a·x + c·y, b·x + d·y).
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return image.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


__all__ = ["MOST_PIXELS", "RgbConverter"]

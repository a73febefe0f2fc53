"""
COCO's run-length encoding (RLE): masks to RLE and back, and overlaps of whole tracks without decoding to pixels.

An RLE stores a mask column by column as the lengths of alternating runs of background and object, either as a list or
as COCO's compressed string. pycocotools works on one frame at a time, which makes Python the bottleneck of a video
metric. Here one call handles all frames of many tracks; a track is the masks of one object over all frames of a video.
"""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools import mask as mask_api

from . import rle_numpy
from .loader import is_available

MAX_PIXELS = (1 << 29) - 1  # of a frame: a run has at most six digits of 5 bits, with a sign
# Of polygons: pycocotools crashes on outlines that it cannot store, and on larger frames, enough for 8K, its encoder
# overflows a buffer that has 6 characters per run.
MAX_OUTLINE = 1 << 22
MAX_POLYGON_FRAME = (1 << 25) - 1

# Text decoded at a time: larger batches lose more to cache misses than they win by fewer calls.
BATCH_CHARACTERS = 200_000


class RleError(ValueError):
    """Masks that cannot be decoded; `problems` maps a mask's index in the given list to what is wrong with it."""

    def __init__(self, problems: dict[int, str]):
        self.problems = problems
        super().__init__("; ".join(f"mask {index}: {problem}" for index, problem in problems.items()))


class DecodedTracks(NamedTuple):
    """
    Run lengths of n tracks of one video.

    Attributes:
        pairs: `(P, 2)` int32: the length of a run of background and of the object run after it (0 if there is none).
        starts: `(n + 1,)` int64: the tracks' first rows in `pairs`, and P.
        areas: `(n, T)` int64: pixels of the object in each frame.
    """

    pairs: np.ndarray
    starts: np.ndarray
    areas: np.ndarray


@lru_cache(maxsize=16)
def empty_mask(pixels: int) -> str:
    """Return the compressed counts of a mask of `pixels` background pixels."""
    return compress([pixels], pixels)


def compress(run_lengths: list[int], pixels: int) -> str:
    """
    Compress a list of run lengths.

    Raises:
        ValueError: if the run lengths are not those of `pixels` pixels.

    Example:
    ```python
    >>> from vita_hf.ops.rle import compress

    >>> compress([4, 5, 1], pixels=10)
    '451'

    ```
    """
    # A quick test first, because annotation files may hold 100,000 of these.
    is_valid = {*map(type, run_lengths)} == {int} and min(run_lengths) >= 0 and sum(run_lengths) == pixels
    if not is_valid and (problem := explain_corruption(run_lengths, pixels)):
        raise ValueError(problem)
    return rle_numpy.compress(run_lengths)


def encode_masks(masks: torch.Tensor) -> list[dict[str, Any]]:
    """
    Encode masks as compressed RLEs.

    Args:
        masks: Bool tensor (n, h, w), on any device.

    Returns:
        n dicts `{"size": [h, w], "counts": str}`, also for masks without a pixel.

    Example:
    ```python
    >>> import torch
    >>> from vita_hf.ops.rle import encode_masks

    >>> encode_masks(torch.tensor([[[False, True], [False, True]]]))
    [{'size': [2, 2], 'counts': '22'}]

    ```
    """
    # pycocotools wants (h, w, n) in Fortran order: the transpose of a contiguous (n, w, h).
    columns = masks.transpose(1, 2).contiguous().view(torch.uint8).cpu().numpy()
    rles = mask_api.encode(columns.transpose(2, 1, 0))
    return [{"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")} for rle in rles]


def encode_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> str:
    """
    Rasterize the polygons of one object.

    Args:
        polygons: `[[x0, y0, x1, y1, …], …]` in pixels, each of at least three points. They may reach beyond the frame.
        height: Rows of the frame.
        width: Columns of the frame.

    Returns:
        The compressed counts of their union.

    Raises:
        ValueError: if there is no polygon, if one is malformed or far too large for the frame, or if the frame has more
            than 2^25 − 1 pixels.

    Example:
    ```python
    >>> from vita_hf.ops.rle import decode, encode_polygons

    >>> counts = encode_polygons([[1, 1, 3, 1, 3, 3, 1, 3]], height=4, width=5)
    >>> pairs, _, areas = decode([counts], pixels=20)
    >>> pairs.tolist(), areas.tolist()
    ([[5, 2], [2, 2], [9, 0]], [4])

    ```
    """
    if not len(polygons):
        raise ValueError("expected at least one polygon")
    if height * width > MAX_POLYGON_FRAME:
        raise ValueError(f"frames with polygons may have {MAX_POLYGON_FRAME} pixels, got {height}×{width}: use RLE")
    points = []
    for index, polygon in enumerate(polygons):
        try:
            points.append(read_polygon(polygon))
        except ValueError as error:
            raise ValueError(f"polygon {index}: {error}") from None
    merged = mask_api.merge(mask_api.frPyObjects(points, height, width))
    return merged["counts"].decode("ascii")


def read_polygon(polygon: Any) -> list[float]:
    """
    Check a polygon `[x0, y0, x1, y1, …]`.

    Raises:
        ValueError: if it has fewer than three points, numbers that are not finite, or is far too large for any frame.
    """
    try:
        # A quick test first, because COCO has a million polygons: the outline is at most twice the sum.
        if len(polygon) >= 6 and len(polygon) % 2 == 0 and 2 * sum(map(abs, polygon)) <= MAX_OUTLINE:
            return list(polygon)
        xy = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        xy = np.empty(0)
    if xy.ndim != 1 or xy.size < 6 or xy.size % 2 or not np.isfinite(xy).all():
        raise ValueError(f"expected at least three points [x0, y0, …] of finite numbers, got {shorten(polygon)}")
    corners = xy.reshape(-1, 2)
    outline = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum()
    if max(outline, np.abs(xy).max()) > MAX_OUTLINE:
        raise ValueError(f"coordinates and outline must not exceed {MAX_OUTLINE} pixels, got {shorten(polygon)}")
    return xy.tolist()


def read_segmentation(segmentation: Any, height: int, width: int) -> str | list[int]:
    """
    Read one frame's segmentation in any form.

    Args:
        segmentation: `None` or `[]` if the object is absent, an RLE `{"size": [height, width], "counts": …}` whose
            counts are a string, bytes or a list of run lengths, or a list of polygons `[[x0, y0, x1, y1, …], …]` in
            pixels.
        height: Rows of the frame.
        width: Columns of the frame.

    Returns:
        Compressed counts, or run lengths if the segmentation has these. [`decode`] checks their content.

    Raises:
        ValueError: if the form is unknown, the size differs, or polygons are malformed.
    """
    if segmentation is None or (isinstance(segmentation, (list, tuple)) and not segmentation):
        return empty_mask(height * width)
    if isinstance(segmentation, (list, tuple)):
        return encode_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError(
            "expected null, an RLE with `size` and `counts`, or a list of polygons, "
            f"got {shorten(segmentation)} ({type(segmentation).__name__})"
        )
    size = segmentation["size"]
    if not isinstance(size, (list, tuple)) or [*size] != [height, width]:
        raise ValueError(f"the RLE has size {shorten(size)}, the video [height, width] = {[height, width]}")
    counts = segmentation["counts"]
    if isinstance(counts, str) and counts.isascii():
        return counts
    if isinstance(counts, str):
        counts = counts.encode(errors="surrogatepass")  # json may hold halves of surrogate pairs, which no file can
    if isinstance(counts, bytes):
        return counts.decode("latin-1")  # never fails: `decode` reports characters outside the format
    if isinstance(counts, (list, tuple, np.ndarray)):
        return list(counts)
    raise ValueError(f"RLE counts must be a string, bytes or a list of run lengths, got {type(counts).__name__}")


def decode(masks: Sequence[str | list[int]], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Decode many masks of one size to run lengths.

    Args:
        masks: K times compressed counts or run lengths, as [`read_segmentation`] returns them.
        pixels: height·width of every mask, less than 2^29.

    Returns:
        pairs: `(P, 2)` int32: the length of a run of background and of the object run after it (0 if there is none).
            A mask may end with a pair of two zeros.
        starts: `(K + 1,)` int64: the masks' first rows in `pairs`, and P.
        areas: `(K,)` int64: pixels of the object in each mask.

    Raises:
        RleError: with a message for every mask whose counts are not an RLE of `pixels` pixels.

    Example:
    ```python
    >>> from vita_hf.ops.rle import decode

    >>> pairs, starts, areas = decode(["451", [0, 3, 7]], pixels=10)
    >>> pairs.tolist(), starts.tolist(), areas.tolist()
    ([[4, 5], [1, 0], [0, 3], [7, 0]], [0, 2, 4], [5, 3])

    ```
    """
    try:
        strings = [mask for mask in masks if isinstance(mask, str)]
        if strings and len(strings) == len(masks):
            return _decode_strings(strings, pixels)
        lists = [_parse_counts(mask) if isinstance(mask, str) else mask for mask in masks]
        if any(bool in map(type, runs) for runs in lists):
            raise ValueError("bools are not integers here")
        # struct is the fastest way from Python's integers to an array, and refuses everything else but bools.
        packed = [struct.pack(f"{len(runs)}q", *runs) + bytes(8 * (len(runs) % 2)) for runs in lists]
        pairs = np.frombuffer(b"".join(packed), np.int64).reshape(-1, 2)
        starts = np.cumsum([0, *((len(runs) + 1) // 2 for runs in lists)])
        areas = rle_numpy.check_pairs(pairs, starts, pixels)
        return pairs.astype(np.int32), starts, areas
    except (ValueError, struct.error):
        problems = {i: problem for i, mask in enumerate(masks) if (problem := explain_corruption(mask, pixels))}
        if not problems:
            raise
        raise RleError(problems) from None


def decode_masks(masks: Sequence[str | list[int]], height: int, width: int) -> np.ndarray:
    """
    Decode n masks to pixels: bool `(n, height, width)`, not contiguous.

    Args:
        masks: As for [`decode`], which also raises the same errors.
        height: Rows of the masks.
        width: Columns of the masks.

    Example:
    ```python
    >>> from vita_hf.ops.rle import decode_masks

    >>> decode_masks([[1, 2, 3]], height=2, width=3).astype(int).tolist()
    [[[0, 1, 0], [1, 0, 0]]]

    ```
    """
    pairs, _, _ = decode(masks, height * width)
    pixels = np.repeat(np.tile(np.array([False, True]), len(pairs)), pairs.ravel())
    return pixels.reshape(-1, width, height).transpose(0, 2, 1)


def _decode_strings(strings: list[str], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    text = np.frombuffer(bytearray("".join(strings), "ascii"), np.uint8)
    ends = np.fromiter(map(len, strings), np.int64, len(strings)).cumsum()
    if not is_available("cpp", warn=False):
        return rle_numpy.decode(text, ends, pixels)
    pairs, starts, areas = torch.ops.vita_hf_cpp.rle_decode(torch.from_numpy(text), torch.from_numpy(ends), pixels)
    return pairs.numpy(), starts.numpy(), areas.numpy()


def decode_tracks(tracks: Sequence[list[str | list[int]]], pixels: int) -> Iterator[DecodedTracks | RleError]:
    """
    Decode the tracks of one video in batches that fit the processor's cache.

    Args:
        tracks: The masks of each track's T frames, as [`read_segmentation`] returns them.
        pixels: height·width of every mask, less than 2^29.

    Yields:
        The tracks in their order, one or more at a time. A track that cannot be decoded yields an error that names its
        frames.
    """
    first = 0
    while first < len(tracks):
        last, length = first, 0
        while last < len(tracks) and length < BATCH_CHARACTERS:
            length += sum(map(len, tracks[last]))
            last += 1
        try:
            yield _decode_batch(tracks[first:last], pixels)
        except RleError:
            for track in tracks[first:last]:
                try:
                    yield _decode_batch([track], pixels)
                except RleError as error:
                    yield error
        first = last


def _decode_batch(tracks: Sequence[list[str | list[int]]], pixels: int) -> DecodedTracks:
    pairs, starts, areas = decode([mask for track in tracks for mask in track], pixels)
    num_frames = len(tracks[0])
    return DecodedTracks(pairs, starts[::num_frames], areas.reshape(-1, num_frames))


def intersections(pairs: np.ndarray, starts: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """
    Count the pixels that tracks of one video share, over all frames.

    Args:
        pairs: `(P, 2)` int32: run lengths as in [`DecodedTracks`].
        starts: `(n + 1,)` int64: the first rows of n tracks in `pairs`, and the row after the last track.
        others: `(P_j, 2)` int32 for each of G other tracks.

    Returns:
        `(n, G)` int64.

    Example:
    ```python
    >>> from vita_hf.ops.rle import decode, intersections

    >>> pairs, starts, _ = decode(["451", [0, 6, 4]], pixels=10)
    >>> intersections(pairs, starts, [pairs[:2]]).tolist()
    [[5], [2]]

    ```
    """
    pairs, starts = pairs[starts[0] : starts[-1]], starts - starts[0]
    if not is_available("cpp", warn=False):
        return rle_numpy.intersections(pairs, starts, others)
    shared = torch.ops.vita_hf_cpp.rle_intersections(
        torch.from_numpy(pairs), torch.from_numpy(starts), [torch.from_numpy(other) for other in others]
    )
    return shared.numpy()


def explain_corruption(mask: str | list[int], pixels: int) -> str | None:
    """Say what is wrong with counts that should cover `pixels` pixels; `None` if nothing is."""
    try:
        runs = _parse_counts(mask) if isinstance(mask, str) else mask
    except ValueError as error:
        return f"corrupt RLE: {error}"
    invalid = [run for run in runs if isinstance(run, bool) or not isinstance(run, (int, np.integer))]
    if invalid:
        return f"corrupt RLE: run lengths must be integers, got {shorten(invalid[0])}"
    negative = [index for index, run in enumerate(runs) if run < 0]
    if negative:
        return f"corrupt RLE: run {negative[0]} has the negative length {runs[negative[0]]}"
    if sum(runs) != pixels:
        return f"corrupt RLE: run lengths add up to {sum(runs)}, expected height·width = {pixels}"
    return None if len(runs) else "corrupt RLE: no run lengths"


def _parse_counts(string: str) -> list[int]:
    """Decode one mask's compressed counts; a `ValueError` says what is wrong and where."""
    runs: list[int] = []
    value, digits = 0, 0
    for position, character in enumerate(string):
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"character {character!r} at position {position} of its counts is not part of the format")
        value |= (code & 31) << (5 * digits)
        digits += 1
        if digits > rle_numpy.MAX_DIGITS:
            raise ValueError(f"a number of more than {digits - 1} digits at position {position} of its counts")
        if code < 32:
            if code & 16:
                value -= 1 << (5 * digits)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, digits = 0, 0
    if digits:
        raise ValueError("its counts end in the middle of a number (cut off?)")
    return runs


def shorten(value: Any, limit: int = 60) -> str:
    """Return the `repr` of a value, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"

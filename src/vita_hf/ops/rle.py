"""Run-length encoded masks: reading them in every form, and overlaps of whole tracks without decoding to pixels.

A mask is stored column by column (COCO's order) as the lengths of alternating runs of background and object.
pycocotools works on one frame at a time, which makes Python the bottleneck of a video metric; here all frames of many
tracks (a track is an object's masks over all frames of a video) are handled in one call, see `Kernels`.
"""

from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_utils

from . import rle_numpy
from .rle_format import MAX_DIGITS, CorruptError, shorten
from .rle_native import load_native

MAX_PIXELS = 1 << 29  # of a frame

# Text decoded at a time: larger batches lose more to cache misses than they win by fewer calls.
BATCH_CHARACTERS = 200_000


class RleError(ValueError):
    """A segmentation that cannot be read; `problems` maps its position in the given list to what is wrong with it."""

    def __init__(self, problems: dict[int, str]):
        self.problems = problems
        super().__init__("; ".join(f"mask {index}: {problem}" for index, problem in problems.items()))


class DecodedTracks(NamedTuple):
    """Run lengths of n tracks of one video.

    Attributes:
        pairs: `(P, 2)` int32, lengths of a run of background and of the run of object after it (0 where there is none).
        starts: `(n + 1,)` int64, the tracks' first rows in `pairs`, and P.
        areas: `(n, T)` int64, pixels of the object in each frame.
    """

    pairs: np.ndarray
    starts: np.ndarray
    areas: np.ndarray


class Kernels(NamedTuple):
    """What is done for each run of each mask. There are two implementations, equal in every digit.

    Attributes:
        decode_strings: takes K compressed counts and the pixels of a mask, see `decode`; raises `CorruptError`.
        decode_runs: the same from lists of run lengths.
        index: takes the `pairs` of G tracks of one video, the frames' height and T·width, and prepares them for
            `intersections`.
        intersections: takes `pairs` and `starts` (from 0) of n tracks of that video and what `index` returned; gives
            `(n, G)` int64, the pixels that they share over all frames.
    """

    decode_strings: Callable[[list[str], int], tuple[np.ndarray, np.ndarray, np.ndarray]]
    decode_runs: Callable[[list[list[int]], int], tuple[np.ndarray, np.ndarray, np.ndarray]]
    index: Callable[[list[np.ndarray], int, int], Any]
    intersections: Callable[[np.ndarray, np.ndarray, Any], np.ndarray]


@cache
def kernels() -> Kernels:
    """The compiled functions where they can be had, numpy's elsewhere: decided here, at the first use."""
    module = load_native() or rle_numpy
    return Kernels(*(getattr(module, name) for name in Kernels._fields))


@lru_cache(maxsize=16)
def empty_mask(pixels: int) -> str:
    """The compressed counts of a mask of `pixels` background pixels."""
    return mask_utils.frPyObjects({"size": [pixels, 1], "counts": [pixels]}, pixels, 1)["counts"].decode("ascii")


def read_segmentation(segmentation, height: int, width: int) -> str | list[int]:
    """Counts of one frame's segmentation, whatever its form.

    Args:
        segmentation: `None` or `[]` (the object is absent), an RLE `{"size": [height, width], "counts": …}` whose
            counts are a string, bytes or a list of run lengths, or a list of polygons `[[x0, y0, x1, y1, …], …]` in
            pixels.
        height, width: the frame's size.

    Returns:
        Compressed counts, or run lengths where the segmentation has these. Their content is looked at by `decode`.

    Raises:
        ValueError: the form is unknown, the size differs, or polygons are malformed.
    """
    if segmentation is None or (isinstance(segmentation, (list, tuple)) and not segmentation):
        return empty_mask(height * width)
    if isinstance(segmentation, (list, tuple)):
        return _read_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError(
            "expected null, an RLE with `size` and `counts`, or a list of polygons, "
            f"got {shorten(segmentation)} ({type(segmentation).__name__})"
        )
    size = segmentation["size"]
    if not isinstance(size, (list, tuple)) or [*size] != [height, width]:
        raise ValueError(f"the RLE has size {shorten(size)}, the video [height, width] = {[height, width]}")
    counts = segmentation["counts"]
    if isinstance(counts, bytes):
        return counts.decode("latin-1")  # never fails: other characters are reported with the rest by `decode`
    if isinstance(counts, str):
        return counts
    if isinstance(counts, (list, tuple, np.ndarray)):
        return list(counts)
    raise ValueError(f"RLE counts must be a string, bytes or a list of run lengths, got {type(counts).__name__}")


def _read_polygons(polygons, height: int, width: int) -> str:
    points = []
    for index, polygon in enumerate(polygons):
        try:
            xy = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            xy = np.empty(0)
        if xy.ndim != 1 or xy.size < 6 or xy.size % 2 or not np.isfinite(xy).all():
            raise ValueError(
                f"polygon {index}: expected at least three points [x0, y0, …] of finite numbers, got {shorten(polygon)}"
            )
        points.append(xy.tolist())
    merged = mask_utils.merge(mask_utils.frPyObjects(points, height, width))
    return merged["counts"].decode("ascii")


def decode(masks: list[str | list[int]], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decodes many masks of one size at once.

    Args:
        masks: K times compressed counts or run lengths, as `read_segmentation` gives them.
        pixels: height·width of every mask, at most 2^29.

    Returns:
        pairs: `(P, 2)` int32, lengths of a run of background and of the run of object after it (0 where there is none).
            A mask may end with a pair of two zeros.
        starts: `(K + 1,)` int64, the masks' first rows in `pairs`, and P.
        areas: `(K,)` int64, pixels of the object in each mask.

    Raises:
        RleError: with a message for every mask whose counts are no valid RLE of `pixels` pixels.
    """
    try:
        if {*map(type, masks)} == {str}:
            return kernels().decode_strings(masks, pixels)
        blank = empty_mask(pixels)
        if all(type(mask) is list or mask == blank for mask in masks):
            return kernels().decode_runs([[pixels] if mask == blank else mask for mask in masks], pixels)
    except CorruptError:
        raise RleError(
            {index: problem for index, mask in enumerate(masks) if (problem := explain_corruption(mask, pixels))}
        ) from None
    parts = [decode([mask], pixels) for mask in masks]  # both forms in one track: valid, but nobody's habit
    sizes = [len(pairs) for pairs, _, _ in parts]
    pairs, _, areas = (np.concatenate(column) for column in zip(*parts))
    return pairs, np.concatenate(([0], np.cumsum(sizes))), areas


def decode_tracks(tracks: list[list[str | list[int]]], pixels: int) -> Iterator[DecodedTracks | RleError]:
    """Decodes tracks of one video, as many at a time as make good use of numpy and of the processor's cache.

    Args:
        tracks: the masks of each track's T frames.
        pixels: height·width of every mask, at most 2^29.

    Yields:
        The tracks in their order, one or several at a time; for a track that cannot be read the error, which names its
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


def _decode_batch(tracks: list[list[str | list[int]]], pixels: int) -> DecodedTracks:
    pairs, starts, areas = decode([mask for track in tracks for mask in track], pixels)
    num_frames = len(tracks[0])
    return DecodedTracks(pairs, starts[::num_frames], areas.reshape(-1, num_frames))


def explain_corruption(mask: str | list[int], pixels: int) -> str | None:
    """What is wrong with counts that should cover `pixels` pixels, in words; `None` if nothing is."""
    if isinstance(mask, str):
        runs = []
        problem = _explain_string(mask, runs)
        if problem:
            return f"corrupt RLE: {problem}"
    else:
        runs = mask
        wrong = [run for run in runs if isinstance(run, bool) or not isinstance(run, (int, np.integer))]
        if wrong:
            return f"corrupt RLE: run lengths must be integers, got {shorten(wrong[0])}"
    negative = [index for index, run in enumerate(runs) if run < 0]
    if negative:
        return f"corrupt RLE: run {negative[0]} has the negative length {runs[negative[0]]}"
    if sum(runs) != pixels:
        return f"corrupt RLE: run lengths add up to {sum(runs)}, expected height·width = {pixels}"
    return None


def _explain_string(string: str, runs: list[int]) -> str | None:
    """Decodes `string` into `runs` and says where that fails."""
    value, digits = 0, 0
    for position, character in enumerate(string):
        code = ord(character) - 48
        if not 0 <= code < 64:
            return f"character {character!r} at position {position} of its counts is not part of the format"
        value |= (code & 31) << (5 * digits)
        digits += 1
        if digits > MAX_DIGITS:
            return f"a number of more than {MAX_DIGITS} digits at position {position} of its counts"
        if code < 32:
            if code & 16:
                value -= 1 << (5 * digits)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, digits = 0, 0
    return "its counts end in the middle of a number (cut off?)" if digits else None

"""Run-length encoded masks: reading them in every form, and overlaps of whole tracks without decoding to pixels.

A mask is stored column by column (COCO's order) as the lengths of alternating runs of background and object.
pycocotools works on one frame at a time, which makes Python the bottleneck of a video metric; here the strings of many
frames are decoded in one go with numpy, and a track (an object's masks over all frames of a video) is a list of
vertical segments: (column, top, bottom), where columns are counted through the frames, so that frame t begins at column
t·width.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_utils

from .rle_native import load_native
from .validation import shorten

# The compressed form writes a number in base 32, low digits first, each as the character 48 + digit, plus 32 while more
# digits follow. The 3rd and later numbers of a mask are differences to the number two places before.
MAX_DIGITS = 6  # 30 signed bits
MAX_PIXELS = 1 << 29  # of a frame

# Text decoded at a time: larger batches lose more to cache misses than they win by fewer calls.
BATCH_CHARACTERS = 200_000

# Little-endian whatever the machine: pairs of 32-bit numbers are summed as 64-bit ones.
INT32, INT64 = np.dtype("<i4"), np.dtype("<i8")

# For bytes.translate: last digits become their signed value, the others are left out.
LAST_DIGITS = bytes(((((c - 48) & 31) ^ 16) - 16) & 255 for c in range(256))
OTHER_DIGITS = bytes(range(80, 112))


class RunLengthError(ValueError):
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


class Segments(NamedTuple):
    """The masks of n tracks of one video as vertical segments.

    Attributes:
        column: `(S,)` int64, the segment's column counted through all frames, `t·width + x`, increasing in each track.
        top: `(S,)` first row of the object in that column.
        bottom: `(S,)` row after the last one; segments with `top == bottom` are empty and count for nothing.
        starts: `(n + 1,)` int64, the tracks' first segments, and S. No track is without.
    """

    column: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    starts: np.ndarray


class IndexedTrack(NamedTuple):
    """A track whose segments are found by column, see `index_track`.

    Attributes:
        rows: `(T·width + 1,)` int64, the last segment of each column as `top + bottom·2^32`, 0 where there is none.
        is_crowded: `(T·width + 1,)` bool, the M columns with further segments; empty if there are none.
        place: `(T·width + 1,)` int32, the place of these columns in `more`; empty if there are none.
        more: `(L, M)` int64, their up to L further segments.
    """

    rows: np.ndarray
    is_crowded: np.ndarray
    place: np.ndarray
    more: np.ndarray


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
        starts: `(K + 1,)` int64, the masks' first rows in `pairs`, and P.
        areas: `(K,)` int64, pixels of the object in each mask.

    Raises:
        RunLengthError: with a message for every mask whose counts are no valid RLE of `pixels` pixels.
    """
    try:
        if {*map(type, masks)} == {str}:
            return _decode(masks, pixels)
        blank = empty_mask(pixels)
        if all(type(mask) is list or mask == blank for mask in masks):
            return _pair_runs([[pixels] if mask == blank else mask for mask in masks], pixels)
    except (_Corrupt, UnicodeEncodeError):
        raise RunLengthError(
            {index: problem for index, mask in enumerate(masks) if (problem := explain_corruption(mask, pixels))}
        ) from None
    parts = [decode([mask], pixels) for mask in masks]  # both forms in one track: valid, but nobody's habit
    sizes = [len(pairs) for pairs, _, _ in parts]
    pairs, _, areas = (np.concatenate(column) for column in zip(*parts))
    return pairs, np.concatenate(([0], np.cumsum(sizes))), areas


def decode_tracks(tracks: list[list[str | list[int]]], pixels: int) -> Iterator[DecodedTracks | RunLengthError]:
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
        except RunLengthError:
            for track in tracks[first:last]:
                try:
                    yield _decode_batch([track], pixels)
                except RunLengthError as error:
                    yield error
        first = last


def _decode_batch(tracks: list[list[str | list[int]]], pixels: int) -> DecodedTracks:
    pairs, starts, areas = decode([mask for track in tracks for mask in track], pixels)
    num_frames = len(tracks[0])
    return DecodedTracks(pairs, starts[::num_frames], areas.reshape(-1, num_frames))


class _Corrupt(Exception):
    pass


def _decode(strings: list[str], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # A "0" after each mask: almost all have an odd number of runs (they end with background), so that with the extra
    # one every mask fills whole (background, object) pairs. Those with an even number get a second one.
    text, counts = _join(strings)
    extra = counts & 1
    if extra.any():
        text, counts = _join([s + "0" if pad else s for s, pad in zip(strings, extra.tolist())])
    sums = running_sums(text).reshape(-1, 2)
    counts = counts >> 1
    ends = np.cumsum(counts)
    starts = np.concatenate(([0], ends))

    # The sums run on through all masks. What the masks before have left in them is taken out; of the background the
    # first run as well, as the 3rd number is no difference to the 1st.
    before, first = sums[starts[:-1]], sums[starts[:-1] + 1, 0]
    left = before.copy()
    left[:, 0] = first
    pairs = sums[1:] - np.repeat(left.view(np.uint64)[:, 0], counts).view(np.uint32).reshape(-1, 2)
    pairs[starts[:-1], 0] = first - before[:, 0]
    pairs[ends - 1, 1] = 0
    pairs[ends[extra > 0] - 1, 0] = 0

    if pairs.max() > pixels:  # or negative, which is large without a sign
        raise _Corrupt
    pairs = pairs.astype(INT32, copy=False)
    return pairs, starts, _sum_areas(pairs, starts, pixels)


def _join(strings: list[str]) -> tuple[bytes, np.ndarray]:
    """The text "00" and the strings with a "0" after each, and how many numbers each string has with its "0"."""
    text = ("00" + "0".join(strings) + "0").encode("ascii")
    code = np.frombuffer(text, np.uint8)
    if code.min() < 48 or code.max() > 111:
        raise _Corrupt
    lengths = np.fromiter(map(len, strings), np.int64, len(strings)) + 1
    ends = np.cumsum(lengths) + 2
    if (code.take(ends[lengths > 1] - 2) >= 80).any():  # the last character before the "0"
        raise _Corrupt
    more_follows = np.flatnonzero(code >= 80)
    too_many = MAX_DIGITS - 1
    if (more_follows[too_many:] - more_follows[:-too_many] == too_many).any():
        raise _Corrupt
    return text, lengths - np.diff(np.searchsorted(more_follows, ends), prepend=0)


def _running_sums(text: bytes) -> np.ndarray:
    """Reads an even number of signed numbers, each of at most 6 digits and added to the one two places before.

    Returns:
        Their sums, uint32, modulo 2^32.
    """
    # All last digits first, with the sign that their highest bit is. As many numbers end before a position as there are
    # positions before it less those of digits that others of the same number follow.
    values = np.frombuffer(text.translate(LAST_DIGITS, OTHER_DIGITS), np.int8).astype(np.int32)
    code = np.frombuffer(text, np.uint8)
    more_follows = np.flatnonzero(code >= 80)
    numbers = more_follows - np.arange(more_follows.size)
    # The other digits of one number stand side by side, the lowest first: the highest of each number is appended, then
    # the one before it of those that have one, and so on. (`repeat` or `reduceat` are slow where the parts are short.)
    digits = (code.take(more_follows) & 31) ^ 16
    is_highest = np.append(numbers[1:] != numbers[:-1], True)[: numbers.size]
    here = np.flatnonzero(is_highest)
    while here.size:
        number = numbers.take(here)
        values[number] = (values.take(number) << 5) | digits.take(here)
        here -= 1  # −1 for the very first, which is the last entry: a highest digit
        here = here.take(np.flatnonzero(~is_highest.take(here)))
    return np.cumsum(values.view(np.uint32).reshape(-1, 2), axis=0, dtype=np.uint32).reshape(-1)


running_sums = load_native() or _running_sums


def _pair_runs(masks: list[list[int]], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = []
    for mask in masks:
        try:
            parts.append(struct.pack(f"{len(mask)}q", *mask))  # a third of the time that array or numpy take
        except struct.error:
            raise _Corrupt from None
        if len(mask) & 1:
            parts.append(bytes(8))
    sizes = [len(mask) + 1 >> 1 for mask in masks]
    if 0 in sizes:
        raise _Corrupt
    runs = np.frombuffer(b"".join(parts), np.uint64)
    if runs.max() > pixels:  # or negative, which is large without a sign
        raise _Corrupt
    pairs = runs.astype(INT32).reshape(-1, 2)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    return pairs, starts, _sum_areas(pairs, starts, pixels)


def _sum_areas(pairs: np.ndarray, starts: np.ndarray, pixels: int) -> np.ndarray:
    if int(np.diff(starts).max()) * pixels < 1 << 32:
        # Both sums of a mask in one 64-bit number, background + object·2^32.
        totals = np.add.reduceat(pairs.view(INT64)[:, 0], starts[:-1])
        areas, background = totals >> 32, totals & 0xFFFFFFFF
    else:
        background, areas = np.add.reduceat(pairs, starts[:-1], axis=0, dtype=np.int64).T
    if (background + areas != pixels).any():
        raise _Corrupt
    return areas


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


def make_segments(pairs: np.ndarray, starts: np.ndarray, height: int, num_columns: int) -> Segments:
    """Cuts the runs of n tracks where columns end.

    Args:
        pairs, starts: run lengths as in `DecodedTracks`; changed for a moment.
        height: rows of a frame.
        num_columns: T·width.
    """
    num_tracks = len(starts) - 1
    # 32 bits halve the time; only very long videos do not fit.
    dtype = np.int32 if height * num_columns < 2**31 else np.int64
    pixels = height * num_columns
    if dtype is np.int64:
        pairs = pairs.astype(dtype)
    # Without the pixels of the track before, each track's first run begins at 0 again.
    firsts = starts[1:-1]
    pairs[firsts, 0] -= pixels
    ends = np.cumsum(pairs.reshape(-1), dtype=dtype)
    pairs[firsts, 0] += pixels
    begin = ends[0::2].copy()
    column = begin // dtype(height)
    first_pixel = column * dtype(height)
    top, bottom = begin - first_pixel, ends[1::2] - first_pixel
    column = column.astype(np.int64)
    if bottom.max(initial=0) > height:
        # Runs over several columns. What they add is put in its place by sorting, which keeps the tracks apart.
        long = np.flatnonzero(bottom > height)
        further = (bottom[long] - 1) // height
        run = np.repeat(long, further)
        step = np.arange(run.size) - np.repeat(np.cumsum(further) - further, further) + 1
        further_bottom = np.minimum(bottom[run] - step * height, height).astype(dtype)
        bottom[long] = height
        added = np.diff(np.searchsorted(run, starts))
        column = np.concatenate([column, column[run] + step])
        track = np.concatenate(
            [np.repeat(np.arange(num_tracks), np.diff(starts)), np.repeat(np.arange(num_tracks), added)]
        )
        order = np.lexsort((column, track))
        column = column[order]
        top = np.concatenate([top, np.zeros_like(further_bottom)])[order]
        bottom = np.concatenate([bottom, further_bottom])[order]
        starts = starts + np.concatenate(([0], np.cumsum(added)))
    return Segments(column, top, bottom, starts)


def index_track(segments: Segments, num_columns: int) -> IndexedTrack:
    """Prepares a single track for being intersected with others of its video.

    Args:
        segments: of one track.
        num_columns: T·width of its video.
    """
    column, top, bottom, _ = segments
    packed = np.empty((column.size, 2), INT32)
    packed[:, 0], packed[:, 1] = top, bottom
    packed = packed.view(INT64).reshape(-1)
    # One column more than there are, for the empty segments at the end of the last frame. Of several segments in one
    # column the last assignment, and so the last segment, wins.
    rows = np.zeros(num_columns + 1, INT64)
    rows[column] = packed
    others = np.flatnonzero(column[1:] == column[:-1])
    if not others.size:
        nothing = np.zeros(0, bool)
        return IndexedTrack(rows, nothing, nothing, np.zeros((0, 0), INT64))
    is_crowded = np.zeros(num_columns + 1, bool)
    place = np.zeros(num_columns + 1, np.int32)
    column = column.take(others)
    is_new = np.append(True, column[1:] != column[:-1])
    first = np.flatnonzero(is_new)
    rank = np.cumsum(is_new) - 1
    layer = np.arange(others.size) - first.take(rank)
    is_crowded[column] = True
    place[column] = rank
    more = np.zeros((layer.max() + 1, first.size), INT64)
    more[layer, rank] = packed.take(others)
    return IndexedTrack(rows, is_crowded, place, more)


def intersections(segments: Segments, other: IndexedTrack) -> np.ndarray:
    """`(n,)` int64, pixels over all frames that each of n tracks shares with another one of the same video."""
    column, top, bottom, starts = segments
    shared = _shared_rows(top, bottom, other.rows.take(column))
    if len(other.more):
        here = np.flatnonzero(other.is_crowded.take(column))
        place = other.place.take(column.take(here))
        top, bottom = top.take(here), bottom.take(here)
        shared[here] += sum(_shared_rows(top, bottom, layer.take(place)) for layer in other.more)
    return np.add.reduceat(shared, starts[:-1], dtype=np.int64)


def _shared_rows(top: np.ndarray, bottom: np.ndarray, packed: np.ndarray) -> np.ndarray:
    other = packed.view(INT32)
    rows = np.minimum(bottom, other[1::2])
    rows -= np.maximum(top, other[0::2])
    return np.maximum(rows, 0, out=rows)

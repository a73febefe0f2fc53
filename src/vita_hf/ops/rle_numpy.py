"""Run lengths and overlaps of whole tracks with numpy alone, see `rle.Kernels`.

The strings of many frames are decoded in one go, and a track is a list of vertical segments: (column, top, bottom),
where columns are counted through the frames, so that frame t begins at column t·width.
"""

import struct
from typing import NamedTuple

import numpy as np

from .rle_format import MAX_DIGITS, CorruptError

# Little-endian whatever the machine: pairs of 32-bit numbers are summed as 64-bit ones.
INT32, INT64 = np.dtype("<i4"), np.dtype("<i8")

# For bytes.translate: last digits become their signed value, the others are left out.
LAST_DIGITS = bytes(((((c - 48) & 31) ^ 16) - 16) & 255 for c in range(256))
OTHER_DIGITS = bytes(range(80, 112))


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


def decode_strings(strings: list[str], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The implementation of `rle.Kernels.decode_strings`."""
    # A "0" after each mask: almost all have an odd number of runs (they end with background), so that with the extra
    # one every mask fills whole (background, object) pairs. Those with an even number get a second one.
    text, counts = _join(strings)
    extra = counts & 1
    if extra.any():
        text, counts = _join([s + "0" if pad else s for s, pad in zip(strings, extra.tolist())])
    sums = _running_sums(text).reshape(-1, 2)
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
        raise CorruptError
    pairs = pairs.astype(INT32, copy=False)
    return pairs, starts, _sum_areas(pairs, starts, pixels)


def _join(strings: list[str]) -> tuple[bytes, np.ndarray]:
    """The text "00" and the strings with a "0" after each, and how many numbers each string has with its "0"."""
    try:
        text = ("00" + "0".join(strings) + "0").encode("ascii")
    except UnicodeEncodeError:
        raise CorruptError from None
    code = np.frombuffer(text, np.uint8)
    if code.min() < 48 or code.max() > 111:
        raise CorruptError
    lengths = np.fromiter(map(len, strings), np.int64, len(strings)) + 1
    ends = np.cumsum(lengths) + 2
    if (code.take(ends[lengths > 1] - 2) >= 80).any():  # the last character before the "0"
        raise CorruptError
    more_follows = np.flatnonzero(code >= 80)
    too_many = MAX_DIGITS - 1
    if (more_follows[too_many:] - more_follows[:-too_many] == too_many).any():
        raise CorruptError
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


def decode_runs(masks: list[list[int]], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The implementation of `rle.Kernels.decode_runs`."""
    parts = []
    for mask in masks:
        try:
            parts.append(struct.pack(f"{len(mask)}q", *mask))  # a third of the time that array or numpy take
        except struct.error:
            raise CorruptError from None
        if len(mask) & 1:
            parts.append(bytes(8))
    sizes = [len(mask) + 1 >> 1 for mask in masks]
    if 0 in sizes:
        raise CorruptError
    runs = np.frombuffer(b"".join(parts), np.uint64)
    if runs.max() > pixels:  # or negative, which is large without a sign
        raise CorruptError
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
        raise CorruptError
    return areas


def index(tracks: list[np.ndarray], height: int, num_columns: int) -> tuple[int, int, list[IndexedTrack]]:
    """The implementation of `rle.Kernels.index`."""
    indexed = []
    for pairs in tracks:
        segments = make_segments(pairs, np.array([0, len(pairs)]), height, num_columns)
        indexed.append(index_track(segments, num_columns))
    return height, num_columns, indexed


def intersections(pairs: np.ndarray, starts: np.ndarray, others: tuple[int, int, list[IndexedTrack]]) -> np.ndarray:
    """The implementation of `rle.Kernels.intersections`."""
    height, num_columns, indexed = others
    segments = make_segments(pairs, starts, height, num_columns)
    return np.stack([_intersections(segments, other) for other in indexed], axis=1)


def make_segments(pairs: np.ndarray, starts: np.ndarray, height: int, num_columns: int) -> Segments:
    """Cuts the runs of n tracks where columns end.

    Args:
        pairs, starts: run lengths as in `rle.DecodedTracks`; changed for a moment.
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


def _intersections(segments: Segments, other: IndexedTrack) -> np.ndarray:
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

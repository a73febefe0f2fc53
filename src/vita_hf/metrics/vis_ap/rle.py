"""Run-length encoded masks: reading them in every form, and overlaps of whole tracks without decoding to pixels.

A mask is stored column by column (COCO's order) as the lengths of alternating runs of background and object. pycocotools
works on one frame at a time, which makes Python the bottleneck of a video metric; here the strings of many frames are
decoded in one go with numpy, and a track (an object's masks over all frames of a video) is a list of vertical segments:
(column, top, bottom), where columns are counted through the frames, so that frame t begins at column t·width.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_utils

# The compressed form writes a number in base 32, low digits first, each as the character 48 + digit, plus 32 while more
# digits follow. The 3rd and later numbers of a mask are differences to the number two places before.
MAX_DIGITS = 6  # 30 signed bits
MAX_PIXELS = 1 << 29


class RunLengthError(ValueError):
    """A segmentation that cannot be read; `problems` maps its position in the given list to what is wrong with it."""

    def __init__(self, problems: dict[int, str]):
        self.problems = problems
        super().__init__("; ".join(f"mask {index}: {problem}" for index, problem in problems.items()))


class Track(NamedTuple):
    """One object's masks over a video, both as runs of pixels and as vertical segments.

    Attributes:
        bounds: `(2P,)` increasing; the object is in the pixels `[bounds[2i], bounds[2i + 1])`, counted column by column
            through all frames, so that frame t begins at t·height·width.
        column: `(S,)` the same runs cut where a column ends: position of the segment's column among all frames'
            columns, `t·width + x`.
        top: `(S,)` first row of the object in that column.
        bottom: `(S,)` row after the last one; segments with `top == bottom` are empty and count for nothing.
        area: number of pixels over all frames.
    """

    bounds: np.ndarray
    column: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    area: int


class IndexedTrack(NamedTuple):
    """A track prepared for being intersected with many others, see `index_track`.

    Attributes:
        tops, bottoms: `(T·width + 1,)` rows of one segment of each column, `top == bottom` where there is none.
        rest: `(2, R)` int64, first and last-plus-one pixel of the segments that found their column taken.
    """

    tops: np.ndarray
    bottoms: np.ndarray
    rest: np.ndarray


@lru_cache(maxsize=16)
def empty_mask(pixels: int) -> str:
    """The compressed counts of a mask of `pixels` background pixels."""
    return mask_utils.frPyObjects({"size": [pixels, 1], "counts": [pixels]}, pixels, 1)["counts"].decode("ascii")


def read_segmentation(segmentation, height: int, width: int) -> str:
    """Compressed counts of one frame's segmentation, whatever its form.

    Args:
        segmentation: `None` or `[]` (the object is absent), an RLE `{"size": [height, width], "counts": …}` whose counts
            are a string, bytes or a list of run lengths, or a list of polygons `[[x0, y0, x1, y1, …], …]` in pixels.
        height, width: the frame's size.

    Raises:
        ValueError: the form is unknown, the size differs, run lengths or polygons are malformed. A string's content is
            not looked at: `decode` does that.
    """
    if segmentation is None or (isinstance(segmentation, (list, tuple)) and not segmentation):
        return empty_mask(height * width)
    if isinstance(segmentation, (list, tuple)):
        return _read_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation or "size" not in segmentation:
        raise ValueError(
            "expected null, an RLE with `size` and `counts`, or a list of polygons, "
            f"got {_shorten(segmentation)} ({type(segmentation).__name__})"
        )
    size = segmentation["size"]
    if not isinstance(size, (list, tuple)) or [*size] != [height, width]:
        raise ValueError(f"the RLE has size {_shorten(size)}, the video [height, width] = {[height, width]}")
    counts = segmentation["counts"]
    if isinstance(counts, bytes):
        return counts.decode("latin-1")  # never fails: other characters are reported with the rest by `decode`
    if isinstance(counts, str):
        return counts
    if isinstance(counts, (list, tuple, np.ndarray)):
        return _read_run_lengths(counts, height, width)
    raise ValueError(f"RLE counts must be a string, bytes or a list of run lengths, got {type(counts).__name__}")


def _shorten(value, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _read_run_lengths(counts, height: int, width: int) -> str:
    try:
        runs = np.asarray(counts, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"RLE run lengths must be integers, got {_shorten(counts)}") from None
    # NaN fails every comparison, so it ends here too.
    if runs.ndim != 1 or not ((runs >= 0) & (runs == np.floor(runs))).all():
        raise ValueError(f"RLE run lengths must be integers >= 0, got {_shorten(counts)}")
    if runs.sum() != height * width:
        raise ValueError(
            f"corrupt RLE: run lengths add up to {runs.sum():.0f}, expected height·width = {height * width}"
        )
    rle = {"size": [height, width], "counts": runs.astype(np.uint32)}
    return mask_utils.frPyObjects(rle, height, width)["counts"].decode("ascii")


def _read_polygons(polygons, height: int, width: int) -> str:
    points = []
    for index, polygon in enumerate(polygons):
        try:
            xy = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            xy = np.empty(0)
        if xy.ndim != 1 or xy.size < 6 or xy.size % 2 or not np.isfinite(xy).all():
            raise ValueError(
                f"polygon {index}: expected at least three points [x0, y0, x1, y1, …] of finite numbers, "
                f"got {_shorten(polygon)}"
            )
        points.append(xy.tolist())
    merged = mask_utils.merge(mask_utils.frPyObjects(points, height, width))
    return merged["counts"].decode("ascii")


def decode(strings: list[str], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decodes the compressed counts of many masks of one size at once.

    Args:
        strings: K compressed counts.
        pixels: height·width of every mask, below 2^29.

    Returns:
        pairs: `(P, 2)` int32, lengths of a run of background and of the run of object after it (0 where there is none).
        starts: `(K + 1,)` int64, the masks' first rows in `pairs`, and P.
        areas: `(K,)` int64, pixels of the object in each mask.

    Raises:
        RunLengthError: with a message for every mask whose counts are no valid RLE of `pixels` pixels.
    """
    try:
        return _decode(strings, pixels)
    except (_Corrupt, UnicodeEncodeError):
        problems = {i: problem for i, s in enumerate(strings) if (problem := explain_corruption(s, pixels))}
        raise RunLengthError(problems) from None


class _Corrupt(Exception):
    pass


def _decode(strings: list[str], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # A "0" after each mask: almost all have an odd number of runs (they end with background), so that with the extra
    # one every mask fills whole (background, object) pairs.
    code = np.frombuffer(("0".join(strings) + "0").encode("ascii"), np.uint8) - np.uint8(48)
    string_ends = np.cumsum(np.fromiter(map(len, strings), np.int64, len(strings)) + 1)
    is_last_digit = code < 32
    last_digits = np.flatnonzero(is_last_digit)
    number_ends = np.searchsorted(last_digits, string_ends)
    unpaired = np.diff(number_ends, prepend=0) & 1
    if unpaired.any():
        string_ends += np.cumsum(unpaired)
        strings = [s + "0" if extra else s for s, extra in zip(strings, unpaired.tolist())]
        code = np.frombuffer(("0".join(strings) + "0").encode("ascii"), np.uint8) - np.uint8(48)
        is_last_digit = code < 32
        last_digits = np.flatnonzero(is_last_digit)
        number_ends = np.searchsorted(last_digits, string_ends)
    # The byte before the pads closes the last real number; `code` wrapped around below 48, so one test finds both ends.
    if code.max() > 63 or not is_last_digit[string_ends - 2 - unpaired].all():
        raise _Corrupt

    # The last digit holds the sign; other digits are rare, so they are added where they are, one place at a time.
    values = (((code & 31) ^ 16).view(np.int8) - np.int8(16)).take(last_digits).astype(np.int32)
    other_digits = np.flatnonzero(~is_last_digit)
    nearest = np.flatnonzero(is_last_digit[other_digits + 1])
    place = other_digits[nearest]
    number = place - nearest  # as many numbers end before `place` as there are bytes before it that are last digits
    for _ in range(MAX_DIGITS):
        if not place.size:
            break
        values[number] = (values[number] << 5) | (code[place] & 31)
        more = code[place - 1] > 31  # at place 0 this looks at the very last byte, a pad
        place, number = place[more] - 1, number[more]
    else:
        raise _Corrupt

    pairs = values.reshape(-1, 2)
    ends = number_ends >> 1
    starts = np.concatenate(([0], ends))
    # The 3rd number is no difference to the 1st, and no mask continues the one before: with both undone in place, one
    # running sum over all masks turns differences into lengths.
    second = starts[:-1][np.diff(starts) > 1]
    pairs[second + 1, 0] -= pairs[second, 0]
    totals = np.add.reduceat(pairs, starts[:-1], axis=0)
    pairs[starts[1:-1]] -= totals[:-1]
    np.cumsum(pairs, axis=0, out=pairs)
    pairs[ends - 1, 1] = 0  # the pads
    pairs[ends[unpaired > 0] - 1, 0] = 0

    sums = np.add.reduceat(pairs, starts[:-1], axis=0, dtype=np.int64)
    if pairs.min() < 0 or (sums.sum(axis=1) != pixels).any():
        raise _Corrupt
    return pairs, starts, sums[:, 1]


def explain_corruption(string: str, pixels: int) -> str | None:
    """What is wrong with compressed counts that should cover `pixels` pixels, in words; `None` if nothing is."""
    runs, value, digits = [], 0, 0
    for position, character in enumerate(string):
        code = ord(character) - 48
        if not 0 <= code < 64:
            return f"corrupt RLE: character {character!r} at position {position} of its counts is not part of the format"
        value |= (code & 31) << (5 * digits)
        digits += 1
        if digits > MAX_DIGITS:
            return f"corrupt RLE: a number of more than {MAX_DIGITS} digits at position {position} of its counts"
        if code < 32:
            if code & 16:
                value -= 1 << (5 * digits)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            if runs[-1] < 0:
                return f"corrupt RLE: run {len(runs) - 1} has the negative length {runs[-1]}"
            value, digits = 0, 0
    if digits:
        return "corrupt RLE: its counts end in the middle of a number (cut off?)"
    if sum(runs) != pixels:
        return f"corrupt RLE: run lengths add up to {sum(runs)}, expected height·width = {pixels}"
    return None


def make_track(pairs: np.ndarray, area: int, height: int, num_columns: int) -> Track:
    """The track of the masks in `pairs`, the part of `decode`'s result that belongs to one object's T frames.

    Args:
        pairs: `(P, 2)` int32 run lengths of all T frames one after the other.
        area: pixels of the object over all frames.
        height: rows of a frame.
        num_columns: T·width.
    """
    dtype = np.int32 if height * num_columns < 2**31 else np.int64
    bounds = np.cumsum(pairs.reshape(-1), dtype=dtype)
    return Track(bounds, *_split_at_columns(bounds[0::2], bounds[1::2], height), int(area))


def _split_at_columns(begin: np.ndarray, end: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs `[begin, end)` of pixels in column-major order as segments (column, top, bottom), none over two columns."""
    column = begin // height
    first_pixel = column * height
    top, bottom = begin - first_pixel, end - first_pixel
    long = np.flatnonzero(bottom > height)
    if long.size:
        # The first column keeps its place in the arrays; the further ones of all long runs are appended.
        further = (bottom[long] - 1) // height
        run = np.repeat(np.arange(long.size), further)
        step = np.arange(run.size) - np.repeat(np.cumsum(further) - further, further) + 1
        extra_bottom = np.minimum(bottom[long][run] - step * height, height)
        bottom[long] = height
        column = np.concatenate([column, (column[long][run] + step).astype(column.dtype)])
        top = np.concatenate([top, np.zeros(run.size, top.dtype)])
        bottom = np.concatenate([bottom, extra_bottom.astype(bottom.dtype)])
    return column, top, bottom


def index_track(track: Track, height: int, num_columns: int) -> IndexedTrack:
    """Prepares a track for `intersection`.

    Args:
        track: the track.
        height: rows of a frame.
        num_columns: T·width of its video.
    """
    filled = np.flatnonzero(track.bottom > track.top)
    column, top, bottom = track.column[filled], track.top[filled], track.bottom[filled]
    # One more column than there are: empty segments at the end of the last frame lie there.
    owner = np.zeros(num_columns + 1, np.int64)
    owner[column] = np.arange(filled.size)
    tops, bottoms = np.zeros(num_columns + 1, np.int32), np.zeros(num_columns + 1, np.int32)
    tops[column], bottoms[column] = top[owner[column]], bottom[owner[column]]
    left = owner[column] != np.arange(filled.size)
    first_pixel = column[left].astype(np.int64) * height
    return IndexedTrack(tops, bottoms, np.stack([first_pixel + top[left], first_pixel + bottom[left]]))


def intersection(track: Track, other: IndexedTrack) -> int:
    """Number of pixels, over all frames, that two tracks of the same video share."""
    shared = np.minimum(track.bottom, other.bottoms.take(track.column))
    shared -= np.maximum(track.top, other.tops.take(track.column))
    total = int(np.maximum(shared, 0, out=shared).sum(dtype=np.int64))
    if other.rest.size:
        total += int(np.subtract(*_pixels_before(track.bounds, other.rest[::-1])).sum())
    return total


def _pixels_before(bounds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """How many of a track's pixels lie before each of `positions` (int64, any shape)."""
    before = np.concatenate(([0], np.cumsum(bounds[1::2] - bounds[0::2], dtype=np.int64)))
    passed = np.searchsorted(bounds, positions.astype(bounds.dtype), side="right")
    inside = np.flatnonzero(passed & 1)
    count = before[passed >> 1]
    flat = count.reshape(-1)
    flat[inside] += positions.reshape(-1)[inside] - bounds[passed.reshape(-1)[inside] - 1]
    return count

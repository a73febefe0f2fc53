"""Run lengths and overlaps of whole tracks in C, see `rle.Kernels`.

The source is a string, as `evaluate.load` copies nothing but Python files. It is compiled at the first use.
"""

import ctypes
import logging
from typing import NamedTuple

import numpy as np

from .compiling import compile_once
from .rle_format import CorruptError

logger = logging.getLogger(__name__)

_SOURCE = r"""
#include <stdint.h>

/* Reads a number of the compressed form (see MAX_DIGITS) at *at, before end. Returns 0, or 1 if there is none. */
static inline int read_number(const uint8_t **at, const uint8_t *end, int64_t *number)
{
    const uint8_t *p = *at;
    unsigned digit = *p++ - 48u;
    int64_t value = digit & 31;
    int bits = 5;
    while (digit & 32) {
        if (digit > 63 || p == end || bits == 30)
            return 1;
        digit = *p++ - 48u;
        value |= (int64_t)(digit & 31) << bits;
        bits += 5;
    }
    if (digit > 63)
        return 1;
    if (digit & 16)
        value -= (int64_t)1 << bits;
    *at = p;
    *number = value;
    return 0;
}

/* Decodes n masks of compressed counts, the i-th being text[ends[i - 1]] to text[ends[i] - 1].

   pairs has room for ends[n - 1] + n numbers, starts for n + 1, areas for n. Returns n, or the index of the first mask
   that is no valid RLE of so many pixels (at most 2^29). */
int64_t decode_strings(const uint8_t *text, const int64_t *ends, int64_t n, int64_t pixels,
                       int32_t *pairs, int64_t *starts, int64_t *areas)
{
    const uint64_t most = (uint64_t)pixels;
    const uint8_t *p = text;
    int32_t *out = pairs;
    starts[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *end = text + ends[i];
        /* The 3rd number is no difference to the 1st: the latter only counts for the sum. */
        int64_t number, background = 0, object = 0;
        uint64_t sum, area = 0;
        if (p == end || read_number(&p, end, &number) || (uint64_t)number > most)
            return i;
        *out++ = (int32_t)number;
        sum = (uint64_t)number;
        for (;;) {
            if (p == end) {
                *out++ = 0;
                break;
            }
            if (read_number(&p, end, &number) || (uint64_t)(object += number) > most)
                return i;
            *out++ = (int32_t)object;
            area += (uint64_t)object;
            if (p == end)
                break;
            if (read_number(&p, end, &number) || (uint64_t)(background += number) > most)
                return i;
            *out++ = (int32_t)background;
            sum += (uint64_t)background;
        }
        if (sum + area != most)
            return i;
        areas[i] = (int64_t)area;
        starts[i + 1] = (out - pairs) / 2;
    }
    return n;
}

/* The same from a Python list of n lists of run lengths, of counts[i] numbers each. pairs has room for all of them, one
   more where they are odd in number. The functions of Python's stable C interface come as arguments, so that its
   headers are not needed; an exception may be set afterwards. */
int64_t decode_runs(void *masks, const int64_t *counts, int64_t n, int64_t pixels,
                    int32_t *pairs, int64_t *starts, int64_t *areas,
                    void *(*get_item)(void *, intptr_t), long long (*as_number)(void *, int *))
{
    int32_t *out = pairs;
    starts[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        void *mask = get_item(masks, (intptr_t)i);
        int64_t sums[2] = {0, 0};
        if (!mask || !counts[i])
            return i;
        for (int64_t k = 0; k < counts[i]; k++) {
            void *item = get_item(mask, (intptr_t)k);
            int overflow;
            long long number = item ? as_number(item, &overflow) : -1;
            if (number < 0 || number > pixels) /* -1 where it is no number, or too large for 64 bits */
                return i;
            *out++ = (int32_t)number;
            sums[k & 1] += number;
        }
        if (counts[i] & 1)
            *out++ = 0;
        if (sums[0] + sums[1] != pixels)
            return i;
        areas[i] = sums[1];
        starts[i + 1] = (out - pairs) / 2;
    }
    return n;
}

/* Pixels that two tracks share: the runs of object of both, in the order in which they end. */
static int64_t intersection(const int32_t *a, const int32_t *a_end, const int32_t *b, const int32_t *b_end)
{
    int64_t shared = 0, a_top, a_bottom = 0, b_top, b_bottom = 0;
    if (a == a_end || b == b_end)
        return 0;
#define NEXT(x)                    \
    x##_top = x##_bottom + x[0];   \
    x##_bottom = x##_top + x[1];   \
    x += 2
    NEXT(a);
    NEXT(b);
    for (;;) {
        int64_t top = a_top > b_top ? a_top : b_top;
        int64_t bottom = a_bottom < b_bottom ? a_bottom : b_bottom;
        if (top < bottom)
            shared += bottom - top;
        if (a_bottom < b_bottom) {
            if (a == a_end)
                return shared;
            NEXT(a);
            if (a_top < b_bottom)
                continue;
            if (b == b_end)
                return shared;
            NEXT(b);
        } else {
            if (b == b_end)
                return shared;
            NEXT(b);
            if (b_top < a_bottom)
                continue;
            if (a == a_end)
                return shared;
            NEXT(a);
        }
    }
#undef NEXT
}

/* shared[i * m + j]: pixels that track i, rows starts[i] to starts[i + 1] - 1 of pairs, shares with others[j], which
   has lengths[j] rows. */
void intersections(const int32_t *pairs, const int64_t *starts, int64_t n,
                   const int32_t *const *others, const int64_t *lengths, int64_t m, int64_t *shared)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            shared[i * m + j] = intersection(pairs + 2 * starts[i], pairs + 2 * starts[i + 1],
                                             others[j], others[j] + 2 * lengths[j]);
}
"""


class IndexedTracks(NamedTuple):
    """Tracks to intersect others with.

    Attributes:
        tracks: their `pairs`, kept alive by this.
        addresses: `(G,)` where these lie.
        lengths: `(G,)` int64, their numbers of rows.
    """

    tracks: list[np.ndarray]
    addresses: np.ndarray
    lengths: np.ndarray


class NativeKernels:
    """The functions of `rle.Kernels`, by a library compiled from `_SOURCE`."""

    def __init__(self, path: str):
        library, pointer, number = ctypes.CDLL(path), ctypes.c_void_p, ctypes.c_int64
        self._decode_strings, self._intersections = library.decode_strings, library.intersections
        self._decode_strings.argtypes = [ctypes.c_char_p, pointer, number, number, pointer, pointer, pointer]
        self._decode_strings.restype = number
        # Unlike the others, it works on Python's objects: with the lock held, and an exception it leaves is raised.
        self._decode_runs = ctypes.PyDLL(path).decode_runs
        self._decode_runs.argtypes = [ctypes.py_object, pointer, number, number, *[pointer] * 5]
        self._decode_runs.restype = number
        functions = (ctypes.pythonapi.PyList_GetItem, ctypes.pythonapi.PyLong_AsLongLongAndOverflow)
        self._python = [ctypes.cast(function, pointer) for function in functions]
        self._intersections.argtypes = [pointer, pointer, number, pointer, pointer, number, pointer]
        self._intersections.restype = None

    def decode_strings(self, strings: list[str], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The implementation of `rle.Kernels.decode_strings`."""
        try:
            text = "".join(strings).encode("ascii")
        except UnicodeEncodeError:
            raise CorruptError from None
        count = len(strings)
        ends = np.fromiter(map(len, strings), np.int64, count).cumsum()
        pairs = np.empty((len(text) + count + 1 >> 1, 2), np.int32)
        starts, areas = np.empty(count + 1, np.int64), np.empty(count, np.int64)
        arrays = (pairs.ctypes.data, starts.ctypes.data, areas.ctypes.data)
        if self._decode_strings(text, ends.ctypes.data, count, pixels, *arrays) != count:
            raise CorruptError
        return pairs[: starts[-1]], starts, areas

    def decode_runs(self, masks: list[list[int]], pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The implementation of `rle.Kernels.decode_runs`."""
        count = len(masks)
        counts = np.fromiter(map(len, masks), np.int64, count)
        pairs = np.empty((int((counts + 1 >> 1).sum()), 2), np.int32)
        starts, areas = np.empty(count + 1, np.int64), np.empty(count, np.int64)
        arrays = (pairs.ctypes.data, starts.ctypes.data, areas.ctypes.data)
        try:
            decoded = self._decode_runs(masks, counts.ctypes.data, count, pixels, *arrays, *self._python)
        except TypeError:
            raise CorruptError from None
        if decoded != count:
            raise CorruptError
        return pairs, starts, areas

    def index(self, tracks: list[np.ndarray], height: int, num_columns: int) -> IndexedTracks:
        """The implementation of `rle.Kernels.index`."""
        tracks = [np.ascontiguousarray(track, np.int32) for track in tracks]
        addresses = np.array([track.ctypes.data for track in tracks], np.uintp)
        return IndexedTracks(tracks, addresses, np.array([len(track) for track in tracks], np.int64))

    def intersections(self, pairs: np.ndarray, starts: np.ndarray, others: IndexedTracks) -> np.ndarray:
        """The implementation of `rle.Kernels.intersections`."""
        pairs, starts = np.ascontiguousarray(pairs, np.int32), np.ascontiguousarray(starts, np.int64)
        shared = np.empty((len(starts) - 1, len(others.tracks)), np.int64)
        theirs = (others.addresses.ctypes.data, others.lengths.ctypes.data, shared.shape[1])
        self._intersections(pairs.ctypes.data, starts.ctypes.data, len(shared), *theirs, shared.ctypes.data)
        return shared


def load_native() -> NativeKernels | None:
    """The compiled functions, or `None` where they are not permitted, cannot be compiled or do not load."""
    path = compile_once("vis_ap", _SOURCE)
    if path is None:
        return None
    try:
        return NativeKernels(str(path))
    except (OSError, AttributeError) as error:
        logger.info("%s does not load, numpy takes over: %s", path, error)
        return None

"""pycocotools' own decoder of RLE strings, for many masks in one call.

From Python, pycocotools decodes one mask at a time, at a cost per call that exceeds the work. On Linux and macOS its
compiled module exports the C functions of `maskApi.h`, which take a text as long as one likes.
"""

import ctypes
from collections.abc import Callable

import numpy as np
from pycocotools import _mask


class _Rle(ctypes.Structure):
    """`RLE` of maskApi.h."""

    _fields_ = [("h", ctypes.c_ulong), ("w", ctypes.c_ulong), ("m", ctypes.c_ulong), ("cnts", ctypes.c_void_p)]


def load_native() -> Callable[[bytes], np.ndarray] | None:
    """The function `rle.running_sums` in C, or `None` where pycocotools hides it or lays out its memory otherwise."""
    try:
        library = ctypes.CDLL(_mask.__file__)
        read, free = library.rleFrString, library.rleFree
    except (OSError, AttributeError):
        return None
    read.argtypes = [ctypes.POINTER(_Rle), ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]
    free.argtypes = [ctypes.POINTER(_Rle)]
    read.restype = free.restype = None

    # Room for a larger struct; no address is followed before the other fields are what they should be.
    probe = (_Rle * 4)()
    read(probe, b"0o0O1", 7, 9)
    if (probe[0].h, probe[0].w, probe[0].m) != (7, 9, 4) or not probe[0].cnts:
        return None
    free(probe)
    if probe[0].cnts:
        return None

    def running_sums(text: bytes) -> np.ndarray:
        result = _Rle()
        read(result, text, 0, 0)
        try:
            return np.frombuffer(ctypes.string_at(result.cnts, 4 * result.m), np.uint32)
        finally:
            free(result)

    return running_sums

"""COCO's RLE in numpy, for machines without a compiler; `kernels/rle` has the same functions in C++."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

MAX_DIGITS = 6  # of a number in compressed counts: 30 signed bits

Decoded = tuple[np.ndarray, np.ndarray, np.ndarray]


def decode(text: np.ndarray, ends: np.ndarray, pixels: int) -> Decoded:
    """
    Decode compressed counts.

    A number is written in base 32, low digits first, each as the character 48 + digit, plus 32 if more digits follow.
    The highest digit carries the sign. From a mask's fourth number on, each is a difference to the number two places
    before.

    Args:
        text: uint8 (characters,): the counts of K masks, one after the other.
        ends: int64 (K,): the position after each mask's last character.
        pixels: height·width of every mask, less than 2^29.

    Returns:
        As in [`vita_hf.ops.rle.decode`].

    Raises:
        ValueError: if any of the masks is not an RLE of `pixels` pixels.
    """
    numbers, counts = _read_numbers(text, ends)
    odd = counts % 2 == 1
    pairs = np.insert(numbers, counts.cumsum()[odd], 0).reshape(-1, 2)
    starts = np.concatenate(([0], ((counts + 1) // 2).cumsum()))
    # Running sums over all masks at once; then each mask gives back what the masks before it have left. Sums may wrap
    # around 32 bits, differences between them come out right. A mask's first background run is not part of the sums.
    firsts, lasts = starts[:-1], starts[1:] - 1
    first_background = pairs[firsts, 0]
    pairs[firsts, 0] = 0
    pairs = pairs.cumsum(axis=0, dtype=np.int32)
    pairs[starts[1] :] -= np.repeat(pairs[lasts[:-1]], np.diff(starts[1:]), axis=0)
    pairs[firsts, 0] = first_background
    pairs[lasts[odd], 1] = 0
    return pairs, starts, check_pairs(pairs, starts, pixels)


def compress(run_lengths: Sequence[int]) -> str:
    """Write the run lengths of one mask, less than 2^29 together, as compressed counts; the inverse of [`decode`]."""
    runs = np.array(run_lengths, dtype=np.int32)
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    rest = numbers[:, None] >> np.arange(0, 5 * MAX_DIGITS + 1, 5, dtype=np.int32)  # what is left after each digit
    digits = rest[:, :-1] & 31
    continues = rest[:, 1:] != -(digits >> 4)
    is_written = np.ones_like(continues)
    is_written[:, 1:] = np.logical_and.accumulate(continues[:, :-1], axis=1)
    return (digits + 48 + 32 * continues)[is_written].astype(np.uint8).tobytes().decode("ascii")


def check_pairs(pairs: np.ndarray, starts: np.ndarray, pixels: int) -> np.ndarray:
    """
    Check the run lengths of K masks.

    Args:
        pairs: int32 or int64 (P, 2): (background, object) pairs.
        starts: int64 (K + 1,): the masks' first rows, and P.
        pixels: height·width of every mask, less than 2^29.

    Returns:
        int64 (K,): the pixels of each object.

    Raises:
        ValueError: if any of the masks is not an RLE of `pixels` pixels.
    """
    if (np.diff(starts) == 0).any() or pairs.min(initial=0) < 0 or pairs.max(initial=0) > pixels:
        raise ValueError("a mask has no runs, or a run that is negative or too long")
    background, areas = np.add.reduceat(pairs, starts[:-1], axis=0, dtype=np.int64).T
    if (background + areas != pixels).any():
        raise ValueError("a mask has too many or too few pixels")
    return np.ascontiguousarray(areas)


def _read_numbers(text: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read all numbers, int32, and count those of each mask."""
    if text.min(initial=48) < 48 or text.max(initial=48) > 111:
        raise ValueError("a character is not part of the format")
    if (np.diff(ends, prepend=0) == 0).any() or (text[ends - 1] >= 80).any():
        raise ValueError("a mask is empty or ends within a number")
    digits = ((text & 31) ^ 16).astype(np.int32)  # the low bits of "0" are 16
    numbers = (digits[text < 80] ^ 16) - 16  # so far the highest digit, with its sign
    low_digits = np.flatnonzero(text >= 80)
    index = low_digits - np.arange(low_digits.size)  # of the number: as many have ended before
    firsts = np.flatnonzero(np.diff(index, prepend=-1))  # of each longer number's low digits
    num_low = np.diff(firsts, append=index.size)
    if num_low.max(initial=0) >= MAX_DIGITS:
        raise ValueError("a number has too many digits")
    numbers[index[firsts]] <<= 5 * num_low
    place = np.arange(low_digits.size) - np.repeat(firsts, num_low)
    np.add.at(numbers, index, digits[low_digits] << 5 * place.astype(np.int32))
    return numbers, np.diff(ends - np.searchsorted(low_digits, ends), prepend=0)


def intersections(pairs: np.ndarray, starts: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """
    Count the pixels that tracks share, see [`vita_hf.ops.rle.intersections`].

    The number of a track's object pixels before a position is a broken line with slopes of 0 and 1. An object run of
    another track shares what the line rises by between the run's ends. float64 holds these numbers exactly.
    """
    shared = np.zeros((len(starts) - 1, len(others)), dtype=np.int64)
    positions = [_running_sums(other)[1:] for other in others]
    for row, (first, last) in enumerate(pairwise(starts)):
        x = _running_sums(pairs[first:last])
        y = _running_sums(pairs[first:last] * np.array([0, 1], dtype=np.int32))
        for column, ends in enumerate(positions):
            line = np.interp(ends, x, y)
            shared[row, column] = (line[1::2] - line[::2]).sum()
    return shared


def _running_sums(pairs: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], pairs.reshape(-1).cumsum(dtype=np.float64)))

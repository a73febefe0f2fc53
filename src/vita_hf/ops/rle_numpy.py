"""COCO's RLE in numpy, for machines without a compiler; `kernels/rle` has the same functions in C++."""

from collections.abc import Sequence

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
        pixels: height·width of every mask, at most 2^29.

    Returns:
        As in [`vita_hf.ops.rle.decode`].

    Raises:
        ValueError: if any of the masks is not an RLE of `pixels` pixels.
    """
    numbers, counts = _read_numbers(text, ends)
    pairs, starts = _make_pairs(numbers, counts)
    # Running sums over all masks at once; then each mask gives back what the masks before it have left. Sums may wrap
    # around 32 bits, differences between them come out right. A mask's first background run is not part of the sums.
    firsts, lasts = starts[:-1], starts[1:] - 1
    first_background = pairs[firsts, 0]
    pairs[firsts, 0] = 0
    pairs = pairs.cumsum(axis=0, dtype=np.int32)
    pairs[starts[1] :] -= np.repeat(pairs[lasts[:-1]], np.diff(starts[1:]), axis=0)
    pairs[firsts, 0] = first_background
    pairs[lasts[counts % 2 == 1], 1] = 0
    return pairs, starts, _check_areas(pairs, starts, pixels)


def decode_run_lengths(runs: np.ndarray, counts: np.ndarray, pixels: int) -> Decoded:
    """
    Do the same for uncompressed counts.

    Args:
        runs: int64 (R,): the run lengths of K masks, one after the other.
        counts: int64 (K,): the number of runs of each mask.
        pixels: height·width of every mask, at most 2^29.
    """
    if (counts == 0).any() or runs.min(initial=0) < 0 or runs.max(initial=0) > pixels:
        raise ValueError("a mask has no runs, or a run that is negative or too long")
    pairs, starts = _make_pairs(runs.astype(np.int32), counts)
    return pairs, starts, _check_areas(pairs, starts, pixels)


def _read_numbers(text: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read all numbers, int32, and count those of each mask."""
    last_digits = np.flatnonzero(text < 80)
    num_digits = np.diff(last_digits, prepend=-1)
    if text.min(initial=48) < 48 or text.max(initial=48) > 111 or num_digits.max(initial=0) > MAX_DIGITS:
        raise ValueError("a character is not part of the format, or a number has too many digits")
    if (np.diff(ends, prepend=0) == 0).any() or (text[ends - 1] >= 80).any():
        raise ValueError("a mask is empty or ends within a number")
    digits = (text & 31) ^ 16  # the low bits of 48 are 16
    numbers = (digits[last_digits].astype(np.int32) ^ 16) - 16
    for place in range(1, num_digits.max(initial=0)):
        longer = np.flatnonzero(num_digits > place)
        numbers[longer] = numbers[longer] << 5 | digits[last_digits[longer] - place]
    return numbers, np.diff(np.searchsorted(last_digits, ends), prepend=0)


def _make_pairs(numbers: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add a zero to every mask of an odd number of runs; returns (background, object) pairs and the masks' first."""
    odd_ends = counts.cumsum()[counts % 2 == 1]
    pairs = np.insert(numbers, odd_ends, 0).reshape(-1, 2)
    return pairs, np.concatenate(([0], ((counts + 1) // 2).cumsum()))


def _check_areas(pairs: np.ndarray, starts: np.ndarray, pixels: int) -> np.ndarray:
    """Sum the object runs of each mask and check that all its runs cover `pixels` pixels."""
    if pairs.min(initial=0) < 0 or pairs.max(initial=0) > pixels:
        raise ValueError("a run is negative or too long")
    background, areas = np.add.reduceat(pairs, starts[:-1], axis=0, dtype=np.int64).T
    if (background + areas != pixels).any():
        raise ValueError("a mask has too many or too few pixels")
    return np.ascontiguousarray(areas)


def intersections(pairs: np.ndarray, starts: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """
    Count the pixels that tracks share, see [`vita_hf.ops.rle.intersections`].

    The number of a track's object pixels before a position is a broken line with slopes of 0 and 1. An object run of
    another track shares what the line rises by between the run's ends; float64 holds these numbers exactly.
    """
    bounds = np.concatenate(([0], pairs.reshape(-1).cumsum(dtype=np.int64)))
    runs = bounds[1:].reshape(-1, 2) - np.repeat(bounds[2 * starts[:-1]], np.diff(starts))[:, None]
    shared = np.zeros((len(starts) - 1, len(others)), dtype=np.int64)
    for column, other in enumerate(others):
        rises = other * np.array([0, 1], dtype=other.dtype)
        positions, covered = (
            np.concatenate(([0], x.reshape(-1).cumsum(dtype=np.int64)))
            for x in (other, rises)
        )
        before = np.interp(runs, positions, covered)
        total = np.concatenate(([0], (before[:, 1] - before[:, 0]).cumsum()))
        shared[:, column] = total[starts[1:]] - total[starts[:-1]]
    return shared

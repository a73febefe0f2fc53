"""Which clip is when: mixing sources by weight, in an order that depends on the seed alone.

Samples are numbered over the whole training, from 0. What sample n is follows from the seed and n, so that the number
of workers and processes makes no difference, and training can go on at any step.
"""

import sys
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from .clips import ClipSettings, draw_clip
from .rows import BrokenSampleError

# What a random stream is for; part of its seed.
_SOURCES, _PERMUTATION, _CLIP = range(3)


class Draw(NamedTuple):
    """
    A sample: row `index` of source `source`, which is in its pass number `epoch` over its rows.

    All count from 0.
    """

    source: int
    epoch: int
    index: int


class SampleSchedule:
    """
    The order of the samples: `schedule[n]` is the [`Draw`] of sample n.

    Each sample's source is drawn by weight, independently of the others. Each source is a stream without end: all its
    rows in a random order, then all in another one, and so on.

    Args:
        sizes: the number of rows of each source.
        weights: how often each source is drawn, relative to the others. A source of weight 0 is never drawn.
        seed: a non-negative integer.
        num_samples: the schedule's length; by default it has no end.

    Raises:
        ValueError: not one positive size and one non-negative weight for each source, or only zero weights.
        IndexError: from `schedule[n]`, beyond its length.
    """

    BLOCK = 1 << 16  # samples whose sources are drawn at a time

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int, num_samples: int | None = None):
        if not sizes or len(sizes) != len(weights):
            raise ValueError(f"sizes and weights: expected one each for every source, got {sizes} and {weights}")
        if min(sizes) < 1:
            raise ValueError(f"sizes: every source must have at least one row, got {list(sizes)}")
        if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(f"weights: expected non-negative numbers, at least one above 0, got {list(weights)}")
        self.sizes, self.weights, self.seed = list(sizes), list(weights), seed
        self.num_samples = sys.maxsize if num_samples is None else num_samples
        self._bounds = np.cumsum(self.weights)[:-1] / sum(self.weights)
        self._blocks: list[np.ndarray] = []
        self._drawn_before = [np.zeros(len(self.sizes), dtype=np.int64)]  # of each source, before each block
        self._permutation = lru_cache(maxsize=4)(self._draw_permutation)

    def __len__(self) -> int:
        return self.num_samples

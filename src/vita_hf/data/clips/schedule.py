"""Deterministic sampling schedule of training clips from sources mixed by weight.

Sample n of a training run depends only on the seed and n, not on the number of workers or processes or on resuming.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ..frames import BrokenSampleError
from .sampling import draw_clip
from .settings import ClipSettings

_SOURCES, _PERMUTATION, _CLIP = range(3)  # purposes of the random streams, part of their seeds


class Draw(NamedTuple):
    """One sample of the schedule: row `index` of a source, after `epoch` complete passes over that source."""

    source: int
    epoch: int
    index: int


class SampleSchedule:
    """
    The order of the samples: `schedule[n]` is the [`Draw`] of sample n, counted from 0.

    The source of each sample is drawn by weight. Each source yields all of its rows in a random order, then all of them
    in another order, and so on.

    Args:
        sizes: Number of rows of each source.
        weights: How often each source is drawn, relative to the others; 0 for never.
        seed: A non-negative integer.
        num_samples: Length of the schedule; endless by default. An n beyond it raises an `IndexError`.

    Raises:
        ValueError: if a source lacks a positive size or a non-negative weight, or if all weights are 0.

    Example:
    ```python
    >>> from vita_hf.data.clips.schedule import SampleSchedule

    >>> schedule = SampleSchedule(sizes=[100, 20], weights=[1.0, 0.5], seed=0)
    >>> schedule[1000]
    Draw(source=1, epoch=16, index=10)

    ```
    """

    BLOCK = 1 << 16  # samples whose sources are drawn at once

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int, num_samples: int | None = None):
        if not sizes or len(sizes) != len(weights):
            raise ValueError(f"sizes and weights: expected one each for every source, got {sizes} and {weights}")
        if min(sizes) < 1:
            raise ValueError(f"sizes: every source must have at least one row, got {list(sizes)}")
        if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(f"weights: expected non-negative numbers, at least one above 0, got {list(weights)}")
        self.sizes, self.seed = list(sizes), seed
        self.num_samples = sys.maxsize if num_samples is None else num_samples
        self._bounds = np.cumsum(weights)[:-1] / sum(weights)
        self._blocks: list[np.ndarray] = []
        self._drawn_before = [np.zeros(len(self.sizes), dtype=np.int64)]  # samples of each source before each block

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, n: int) -> Draw:
        if not 0 <= n < self.num_samples:
            raise IndexError(f"sample {n}: the schedule has the samples 0 to {self.num_samples - 1}")
        block, offset = divmod(n, self.BLOCK)
        while len(self._blocks) <= block:
            self._draw_block()
        source = int(self._blocks[block][offset])
        earlier = int(np.count_nonzero(self._blocks[block][:offset] == source))
        epoch, position = divmod(int(self._drawn_before[block][source]) + earlier, self.sizes[source])
        return Draw(source, epoch, int(_permutation(self.seed, source, epoch, self.sizes[source])[position]))

    def rng(self, n: int) -> np.random.Generator:
        """Return sample n's own random number generator."""
        return _generator(self.seed, _CLIP, *self[n])

    def _draw_block(self) -> None:
        rng = _generator(self.seed, _SOURCES, len(self._blocks))
        sources = np.searchsorted(self._bounds, rng.random(self.BLOCK), side="right")
        self._blocks.append(sources.astype(np.min_scalar_type(len(self.sizes))))
        self._drawn_before.append(self._drawn_before[-1] + np.bincount(sources, minlength=len(self.sizes)))


@dataclass(eq=False)
class ClipDataset(Dataset):
    """
    The clips of a training run: item n is sample n of the schedule, drawn by [`draw_clip`].

    Args:
        sources: The rows of each source, a `datasets.Dataset` or another sequence.
        settings: The clip settings of each source.
        schedule: A schedule over the sources.
        skip_broken: Whether the next row of the source replaces a broken row. The item's `skipped` lists the errors.

    Raises:
        ValueError: if sources, settings and schedule do not match; from an item, if all rows of its source are broken.
        BrokenSampleError: from an item, if its row is broken and `skip_broken` is False.
    """

    sources: Sequence[Sequence[dict[str, Any]]]
    settings: Sequence[ClipSettings]
    schedule: SampleSchedule
    skip_broken: bool = False

    def __post_init__(self):
        sizes, settings = [len(source) for source in self.sources], len(self.settings)
        if sizes != self.schedule.sizes or settings != len(sizes):
            expected = f"a schedule for {self.schedule.sizes} and {settings} settings"
            raise ValueError(f"sources with {sizes} rows do not match {expected}")

    def __len__(self) -> int:
        return len(self.schedule)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, _, first = self.schedule[index]
        rows, skipped = self.sources[source], []
        for attempt in range(len(rows)):
            row = rows[(first + attempt) % len(rows)]
            try:
                return draw_clip(row, self.settings[source], self.schedule.rng(index)) | {"skipped": skipped}
            except BrokenSampleError as error:
                if not self.skip_broken:
                    raise
                skipped.append(str(error))
        raise ValueError(f"all {len(rows)} rows of source {source} are broken; the first: {skipped[0]}")


@dataclass(frozen=True)
class StepBatchSampler:
    """
    The sample numbers of one process's batches, for the steps [start_step, steps).

    With a batch size of B, optimizer step s uses the samples [s · B, (s + 1) · B), however they are split into
    `micro_batches` parts, whose gradients are accumulated, and each part among the processes.

    Args:
        steps: Optimizer steps of the whole training.
        batch_size: Samples per step, over all processes and micro-batches.
        micro_batches: Forward passes per step.
        num_processes: Number of processes.
        process_index: Index of this process.
        start_step: First step, after a resume.

    Raises:
        ValueError: if `batch_size` is not a multiple of `micro_batches` · `num_processes`, or a number is out of range.
    """

    steps: int
    batch_size: int
    _: KW_ONLY
    micro_batches: int = 1
    num_processes: int = 1
    process_index: int = 0
    start_step: int = 0

    def __post_init__(self):
        check_batch_size(self.batch_size, self.micro_batches, self.num_processes)
        if not 0 <= self.process_index < self.num_processes:
            raise ValueError(f"process_index: expected 0 to {self.num_processes - 1}, got {self.process_index}")
        if not 0 <= self.start_step <= self.steps:
            raise ValueError(f"start_step: expected 0 to {self.steps}, got {self.start_step}")

    def __len__(self) -> int:
        return (self.steps - self.start_step) * self.micro_batches

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size // (self.micro_batches * self.num_processes)
        for micro_batch in range(self.start_step * self.micro_batches, self.steps * self.micro_batches):
            first = (micro_batch * self.num_processes + self.process_index) * size
            yield list(range(first, first + size))


def check_batch_size(batch_size: int, micro_batches: int, num_processes: int) -> None:
    """Raise a `ValueError` if the clips of a step cannot be split evenly."""
    parts = micro_batches * num_processes
    if min(batch_size, micro_batches, num_processes) < 1 or batch_size % parts:
        expected = f"a multiple of micro_batches · num_processes = {parts}, all positive"
        raise ValueError(f"batch_size: expected {expected}, got {batch_size}")


def _generator(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, *numbers)))


@lru_cache(maxsize=8)
def _permutation(seed: int, source: int, epoch: int, size: int) -> np.ndarray:
    return _generator(seed, _PERMUTATION, source, epoch).permutation(size)

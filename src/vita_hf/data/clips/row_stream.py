"""Rows out of a stream, in an order that only depends on (seed, epoch), from any place in it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import IterableDataset

from ..schema import has_objects


class RowStream(Iterator[dict[str, Any]]):
    """
    Shuffles a stream, epoch after epoch, without end.

    Shards come in random order; rows are drawn at random from a buffer that they pass through. Rows without an object
    to learn from are left out. Iterate in the main process and hand rows to the workers: inside a worker `datasets`
    gives each one a part of the shards, and the order then depends on their number. Every process reads all rows, and
    [`~vita_hf.data.streamed_clips.StreamBatchSampler`] takes its own.

    Args:
        rows: with [`schema.VIDEO_FEATURES`], from `read_parquet(…, streaming=True)`.
        seed, epoch: decide the order.
        buffer_size: rows held in memory to choose from, with their encoded images (a few MB for a video).
        position: rows of the first epoch to pass over. They are read (not decoded), since a stream has no index.

    Attributes:
        epoch: of the next row.
        position: how many rows of that epoch came before it. A stream started with both goes on with the same row.

    Raises:
        ValueError: (at once) the epoch has fewer rows than `position`; (while iterating) no row has an object.
    """

    def __init__(self, rows: IterableDataset, seed: int, epoch: int = 0, buffer_size: int = 100, position: int = 0):
        if buffer_size < 1:
            raise ValueError(f"buffer_size: expected at least 1, got {buffer_size}")
        self.epoch, self.position = epoch, 0
        self._rows, self._seed, self._buffer_size = rows, seed, buffer_size
        self._iterator = self._shuffled()
        while self.position < position:
            if next(self._iterator, None) is None:
                found = f"the stream has {self.position} rows with objects"
                raise ValueError(f"position {position} of epoch {epoch}: {found}")
            self.position += 1

    def _in_order(self, random: np.random.Generator) -> Iterator[dict[str, Any]]:
        shards = self._rows.num_shards
        for shard in random.permutation(shards).tolist():
            yield from filter(has_objects, self._rows.shard(num_shards=shards, index=shard))

    def _shuffled(self) -> Iterator[dict[str, Any]]:
        # Not `IterableDataset.shuffle`: its order changes between versions of `datasets`, and a run is to be resumed.
        random = np.random.default_rng((self._seed, self.epoch))
        held: list[dict[str, Any]] = []
        for row in self._in_order(random):
            if len(held) < self._buffer_size:
                held.append(row)
                continue
            drawn = random.integers(len(held))
            yield held[drawn]
            held[drawn] = row
        for drawn in random.permutation(len(held)).tolist():
            yield held[drawn]

    def __next__(self) -> dict[str, Any]:
        row = next(self._iterator, None)
        if row is None:
            if self.position == 0:
                raise ValueError("the stream has no row with an annotated object that is no crowd")
            self.epoch, self.position = self.epoch + 1, 0
            self._iterator = self._shuffled()
            return next(self)
        self.position += 1
        return row


__all__ = ["RowStream"]

"""Rows out of a stream, in an order that only depends on (seed, epoch), from any place in it."""

from collections.abc import Iterator
from typing import Any

from datasets import IterableDataset

from .rows import has_objects


class RowStream(Iterator[dict[str, Any]]):
    """
    An endless iterator over rows; see [`stream_rows`].

    Attributes:
        epoch: of the next row.
        position: how many rows of that epoch came before it. A stream started with both goes on with the same row.
    """

    def __init__(self, rows: IterableDataset, seed: int, epoch: int, buffer_size: int, position: int):
        self.epoch, self.position = epoch, position
        self._shuffled = rows.shuffle(seed=seed, buffer_size=buffer_size)
        self._iterator = self._open(position)

    def _open(self, skip: int) -> Iterator[dict[str, Any]]:
        self._shuffled.set_epoch(self.epoch)
        iterator = filter(has_objects, self._shuffled)
        for passed in range(skip):
            if next(iterator, None) is None:
                raise ValueError(f"position {skip} of epoch {self.epoch}: the stream has {passed} rows with objects")
        return iterator

    def __next__(self) -> dict[str, Any]:
        row = next(self._iterator, None)
        if row is None:
            if self.position == 0:
                raise ValueError("the stream has no row with an annotated object that is no crowd")
            self.epoch, self.position = self.epoch + 1, 0
            self._iterator = self._open(0)
            return next(self)
        self.position += 1
        return row


def stream_rows(
    rows: IterableDataset, seed: int, epoch: int = 0, buffer_size: int = 100, position: int = 0
) -> RowStream:
    """
    Shuffle a stream, epoch after epoch, without end.

    The order is that of `rows.shuffle(seed, buffer_size)` with `set_epoch(epoch)`: shards are shuffled, then rows
    within a buffer. Rows without an object to learn from are left out. Iterate in the main process and hand rows to the
    workers: inside a worker `datasets` gives each one other shards, and the order then depends on their number. Several
    processes take every n-th row each.

    Args:
        rows: with [`schema.VIDEO_FEATURES`], from `read_parquet(…, streaming=True)`.
        seed, epoch: decide the order.
        buffer_size: rows held in memory to choose from, with their encoded images (a few MB for a video).
        position: rows of the first epoch to pass over. They are read (not decoded), since a stream has no index.

    Raises:
        ValueError: (at once) the epoch has fewer rows than `position`; (while iterating) no row has an object.
    """
    return RowStream(rows, seed, epoch, buffer_size, position)


__all__ = ["RowStream", "stream_rows"]

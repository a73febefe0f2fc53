"""Training clips from a stream of rows, in an order that depends only on the seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from datasets import IterableDataset
from torch.utils.data import Dataset

from ..schema import NOT_EMBEDDED, has_objects
from .sampling import draw_clip
from .schedule import StepBatchSampler
from .settings import ClipSettings


def stream_rows(
    rows: IterableDataset, seed: int, epoch: int = 0, position: int = 0, buffer_size: int = 100
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """
    Shuffle a stream of rows, epoch after epoch, without end. Rows without an object to learn from are left out.

    The shards of an epoch come in random order. Their rows pass through a buffer, from which the next row is drawn.
    Iterate in the main process only: inside a worker, `datasets` yields only a part of the shards.

    Args:
        rows: Rows with [`schema.VIDEO_FEATURES`], from `read_parquet(…, streaming=True)`.
        seed, epoch: Decide the order.
        position: Number of rows of the first epoch to skip; they are read but not decoded.
        buffer_size: Number of rows in the buffer, with their encoded images: a few MB for a video.

    Yields:
        The epoch, the position after the row, and the row. A stream started at both continues with the next row.

    Raises:
        ValueError: if the first epoch has fewer rows than `position`, no row has an object, or a frame is not embedded.
    """
    if buffer_size < 1:
        raise ValueError(f"buffer_size: expected at least 1, got {buffer_size}")
    while True:
        count = 0
        for count, row in enumerate(_shuffled(rows, np.random.default_rng((seed, epoch)), buffer_size), start=1):
            if count > position:
                yield epoch, count, row
        if count < position:
            raise ValueError(f"position {position} of epoch {epoch}: the stream has {count} rows with objects")
        if count == 0:
            raise ValueError("the stream has no row with an annotated object that is no crowd")
        epoch, position = epoch + 1, 0


def _shuffled(rows: IterableDataset, rng: np.random.Generator, buffer_size: int) -> Iterator[dict[str, Any]]:
    # `IterableDataset.shuffle` changes its order between versions of `datasets`; a resumed run needs a fixed one.
    shards = [rows.shard(rows.num_shards, index) for index in rng.permutation(rows.num_shards).tolist()]
    buffer: list[dict[str, Any]] = []
    for row in filter(has_objects, chain.from_iterable(shards)):
        if any(frame["bytes"] is None for frame in row["frames"]):
            raise ValueError(f"video {row['video_id']}: {NOT_EMBEDDED}")
        if len(buffer) < buffer_size:
            buffer.append(row)
        else:
            index = rng.integers(buffer_size)
            yield buffer[index]
            buffer[index] = row
    for index in rng.permutation(len(buffer)).tolist():
        yield buffer[index]


@dataclass(eq=False)
class StreamedClips(Dataset):
    """
    Clips of a stream of rows, from `read_parquet(…, streaming=True)`. A broken row is an error.

    An item is `(n, row)`; the seed and n decide how its clip is drawn. Because the main process reads the stream and
    sends each worker its rows, their order does not depend on the number of workers.
    """

    rows: IterableDataset
    settings: ClipSettings
    seed: int

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "rows": None}  # workers do not read the stream

    def __getitem__(self, index: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        n, row = index
        return draw_clip(row, self.settings, np.random.default_rng([self.seed, n])) | {"skipped": []}


class StreamBatchSampler:
    """
    The batches of a [`StepBatchSampler`], with their rows: sample n is the n-th row of the stream.

    Every process reads the whole stream and keeps the rows of its own samples.

    Args:
        clips: Clips of the stream to read.
        numbers: Sample numbers of this process's batches.
        start: (epoch, position) of the first row, from [`place`]; None for the beginning of the stream.
    """

    def __init__(self, clips: StreamedClips, numbers: StepBatchSampler, start: list[int] | None = None):
        self.clips, self.numbers = clips, numbers
        self._places = {numbers.start_step: list(start or (0, 0))}

    def place(self, step: int) -> list[int]:
        """Return (epoch, position) of a step's first row; only for the newest thousand steps that were reached."""
        return self._places[step]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[tuple[int, dict[str, Any]]]]:
        numbers = self.numbers
        size = numbers.batch_size // numbers.micro_batches
        epoch, position = self._places[numbers.start_step]
        stream = stream_rows(self.clips.rows, self.clips.seed, epoch, position)
        for micro_batch, batch in enumerate(numbers, numbers.start_step * numbers.micro_batches):
            rows = {}
            for n in range(micro_batch * size, (micro_batch + 1) * size):
                epoch, position, rows[n] = next(stream)
            step, is_unfinished = divmod(micro_batch + 1, numbers.micro_batches)
            if not is_unfinished:
                self._places[step] = [epoch, position]
            if len(self._places) > 1000:  # far more than workers read ahead
                del self._places[min(self._places)]
            yield [(n, rows[n]) for n in batch]

"""Clips from a stream of rows, as a DataLoader takes them."""

from collections.abc import Iterator

import numpy as np
from datasets import IterableDataset
from torch.utils.data import Dataset

from .row_stream import RowStream
from .sampling import draw_clip
from .schedule import StepBatchSampler
from .settings import ClipSettings


class StreamedClips(Dataset):
    """
    Clips whose rows come with the request: an item is `(n, row)`, its clip is drawn by (seed, n).

    The main process reads the stream and hands each worker the rows it needs, so that neither the number of workers nor
    that of processes changes the order. There is no index to look for another row in, so a broken row is an error.

    Args:
        rows: from `read_parquet(…, streaming=True)`.
        settings: number of frames and augmentation.
        seed: decides the order and the clips.
        buffer_size: rows that the next one is drawn from.
    """

    def __init__(self, rows: IterableDataset, settings: ClipSettings, seed: int, buffer_size: int = 100):
        self.rows, self.settings, self.seed, self.buffer_size = rows, settings, seed, buffer_size

    def __getstate__(self) -> dict:
        return {**self.__dict__, "rows": None}  # workers read no stream

    def __getitem__(self, item: tuple[int, dict]) -> dict:
        n, row = item
        return draw_clip(row, self.settings, np.random.default_rng([self.seed, n])) | {"skipped": []}


class StreamBatchSampler:
    """
    The batches of a [`StepBatchSampler`], with rows: sample n is the stream's n-th row.

    Args:
        clips: whose stream is read.
        numbers: which samples this process needs, and when.
        start: place in the stream of the first step's first row, from `place`; None for its beginning.
    """

    def __init__(self, clips: StreamedClips, numbers: StepBatchSampler, start: list[int] | None = None):
        self.clips, self.numbers = clips, numbers
        self._places = {numbers.start_step: list(start or (0, 0))}

    def place(self, step: int) -> list[int]:
        """(epoch, position) of a step's first row; of steps that were reached, the newest few hundred."""
        return self._places[step]

    def __len__(self) -> int:
        return len(self.numbers)

    def _is_last_of_step(self, n: int) -> bool:
        """Whether sample n is the last of a step that this process takes."""
        of_micro_batch = self.numbers.batch_size // self.numbers.micro_batches
        return n % self.numbers.batch_size >= (self.numbers.micro_batches - 1) * of_micro_batch

    def __iter__(self) -> Iterator[list[tuple[int, dict]]]:
        numbers = self.numbers
        epoch, position = self._places[numbers.start_step]
        stream = RowStream(self.clips.rows, self.clips.seed, epoch, self.clips.buffer_size, position)
        reached = numbers.start_step * numbers.batch_size  # the number of the stream's next row
        for batch in numbers:
            items = []
            for n in batch:
                while reached <= n:
                    row = next(stream)
                    reached += 1
                items.append((n, row))
            if self._is_last_of_step(batch[-1]):
                step = batch[-1] // numbers.batch_size + 1
                while reached < step * numbers.batch_size:  # what other processes take
                    next(stream)
                    reached += 1
                self._places[step] = [stream.epoch, stream.position]
            while len(self._places) > 1000:  # far more than workers read ahead
                del self._places[min(self._places)]
            yield items


__all__ = ["StreamBatchSampler", "StreamedClips"]

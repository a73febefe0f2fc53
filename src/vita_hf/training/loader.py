"""Load batches of clips in worker processes."""

from collections.abc import Callable, Generator, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from .signals import ignore_stop_signals


def load_batches(
    clips: Dataset,
    samples: Iterable[list],
    collate: Callable[[list[dict]], dict[str, Any]],
    *,
    workers: int,
    pin_memory: bool,
) -> Generator[dict[str, Any]]:
    """
    Yield batches of clips. Closing the generator ends its workers.

    Args:
        clips: The clips.
        samples: The items of `clips` that each batch consists of.
        collate: Makes a batch of a list of clips.
        workers: Number of worker processes; 0 loads the clips in this process.
        pin_memory: Whether to put the batches into pinned memory, from which copies to a GPU are faster.

    Raises:
        ValueError, OSError: if a clip cannot be loaded; the very error that a worker met.
    """
    loader = DataLoader(
        _Batches(clips, collate),
        batch_size=None,  # an item of `_Batches` is a batch already
        sampler=samples,
        num_workers=workers,
        worker_init_fn=ignore_stop_signals,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(0),  # the global generator belongs to the training step
    )
    batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()  # they ignore the SIGTERM that Python sends them at exit


class _Batches(Dataset):
    """
    Batches, by the items that they consist of.

    An expected error is returned, for [`load_batches`] to raise: a DataLoader would hand over only its traceback as
    text, in an error of another type.
    """

    def __init__(self, clips: Dataset, collate: Callable[[list[dict]], dict[str, Any]]):
        self.clips, self.collate = clips, collate

    def __getitem__(self, index: list) -> dict[str, Any] | Exception:
        try:
            return self.collate([self.clips[item] for item in index])
        except (ValueError, OSError) as error:
            return error

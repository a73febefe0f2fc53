"""Batches from worker processes, and the errors of workers."""

import multiprocessing
from contextlib import closing

import pytest
import torch
from torch.utils.data import Dataset

from vita_hf.data.frames import BrokenSampleError
from vita_hf.training.loader import load_batches


class Squares(Dataset):
    def __getitem__(self, number: int) -> torch.Tensor:
        if number == 5:
            raise BrokenSampleError("frame-missing", 7, "00005.jpg", "no such file")
        if number == 6:
            raise KeyError(number)
        return torch.tensor(number**2)


def load(samples: list[list[int]], workers: int):
    return load_batches(Squares(), samples, torch.stack, workers=workers, pin_memory=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(workers):
    with closing(load([[1, 2], [4, 3], [0]], workers)) as batches:
        assert [batch.tolist() for batch in batches] == [[1, 4], [16, 9], [0]]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_keeps_type_message_and_attributes(workers):
    with closing(load([[1], [2, 5], [3]], workers)) as batches:
        assert next(batches).tolist() == [1]
        with pytest.raises(BrokenSampleError) as caught:
            next(batches)
    assert str(caught.value) == "video 7, 00005.jpg: no such file"
    assert (caught.value.kind, caught.value.video_id) == ("frame-missing", 7)
    assert not multiprocessing.active_children()


def test_an_unexpected_error_brings_the_worker_s_traceback():
    with closing(load([[6]], 1)) as batches, pytest.raises(KeyError, match="in __getitem__"):
        next(batches)

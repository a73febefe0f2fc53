import threading

import pytest

from vita_hf.inference.read_ahead import read_ahead


def test_only_one_chunk_is_prepared_ahead():
    taken = []

    def numbers():
        for number in range(10):
            taken.append(number)
            yield number

    with_ahead = read_ahead(numbers())
    assert next(with_ahead) == 0
    for _ in range(200):  # the thread has all the time it wants
        if len(taken) == 3:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert taken == [0, 1, 2]  # one waits, one is held by the thread
    assert list(with_ahead) == list(range(1, 10))


def test_reading_ahead_ends_with_its_user():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    threads = threading.active_count()
    numbers = read_ahead(endless())
    next(numbers)
    numbers.close()
    assert closed.is_set() and threading.active_count() == threads

    def broken():
        yield 1
        raise KeyError("lost")

    numbers = read_ahead(broken())
    assert next(numbers) == 1
    with pytest.raises(KeyError, match="lost"):
        next(numbers)
    assert threading.active_count() == threads

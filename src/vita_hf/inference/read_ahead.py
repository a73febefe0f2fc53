"""Prepare the next item while the current one is used."""

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Generator[T]) -> Generator[T]:
    """
    Run a generator in a thread, one item ahead of its consumer.

    The thread ends with the consumer, also if the consumer stops early. Errors reach the consumer as they are.

    Args:
        items: It runs, and is closed, in the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def hand_over(item: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put((item, error), timeout=0.1)
            except queue.Full:
                pass

    def work() -> None:
        with closing(items):
            try:
                for item in items:
                    hand_over(item, None)
                    if stopped.is_set():
                        return
                    del item  # so that only one item waits
                hand_over(None, StopIteration())
            except BaseException as error:
                hand_over(None, error)

    thread = threading.Thread(target=work, name="vita-hf-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
            del item
    finally:
        stopped.set()
        thread.join()


__all__ = ["read_ahead"]

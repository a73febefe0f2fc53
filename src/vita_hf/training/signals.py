"""Stop training on a signal without losing its state."""

import contextlib
import signal
from collections.abc import Generator


class TrainingInterrupted(Exception):
    """A signal stopped the training; the newest checkpoint holds its state."""


class StopRequest:
    """
    Whether a signal has asked the training to stop. It is true once one has.

    The training stops after the current step. Work inside [`stop_at_once`] stops immediately.
    """

    def __init__(self):
        self.requested = False
        self._message: str | None = None  # set while work may stop immediately

    def __bool__(self) -> bool:
        return self.requested

    @contextlib.contextmanager
    def stop_at_once(self, message: str) -> Generator[None]:
        """Leave the block with `TrainingInterrupted(message)` as soon as a stop is requested."""
        self._message = message
        try:
            if self.requested:
                raise TrainingInterrupted(message)
            yield
        finally:
            self._message = None

    def handle(self, number: int, frame) -> None:
        """Handle a signal. Ignore a second SIGTERM: a launcher may repeat one that the batch system sent already."""
        repeated, self.requested = self.requested, True
        if self._message is not None and not repeated:
            raise TrainingInterrupted(self._message)
        if repeated and number == signal.SIGINT:
            raise KeyboardInterrupt


@contextlib.contextmanager
def stop_on_signals() -> Generator[StopRequest]:
    """Turn SIGINT and SIGTERM into a stop request. A second SIGINT raises KeyboardInterrupt."""
    stop = StopRequest()
    previous = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_stop_signals(worker: int) -> None:
    """
    Let a worker process of a DataLoader survive SIGINT and SIGTERM.

    Ctrl-C reaches every process of the terminal and a batch system's SIGTERM every process of the job, but the main
    process still needs its workers to finish the step. It ends them itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

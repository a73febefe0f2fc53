import signal

import pytest

from vita_hf.training.signals import StopRequest, TrainingInterrupted


def test_only_a_second_interrupt_from_the_keyboard_stops_at_once():
    stop = StopRequest()
    for number in (signal.SIGTERM, signal.SIGTERM):
        stop.handle(number, None)
    assert stop
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT, None)
    with pytest.raises(TrainingInterrupted, match="before it began"), stop.stop_at_once("before it began"):
        raise AssertionError

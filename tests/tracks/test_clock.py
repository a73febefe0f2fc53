import pytest

from vita_hf.tracks.clock import format_clock


@pytest.mark.parametrize(
    "seconds, digits, text",
    [(0, 2, "0:00.00"), (65.5, 2, "1:05.50"), (59.999, 2, "1:00.00"), (3599.9, 0, "1:00:00"), (7325, 0, "2:02:05")],
)
def test_clock(seconds, digits, text):
    assert format_clock(seconds, digits) == text

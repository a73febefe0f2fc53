import math
from fractions import Fraction

import pytest

from vita_hf.video.frame_source import EveryNth, sample_frames
from vita_hf.video.sources import FrameList


@pytest.mark.parametrize("step", [1, Fraction(3, 2), Fraction(2997, 1000), Fraction(30, 7), 25])
def test_every_nth(step):
    chosen = EveryNth(step)
    expected = [index for index in (math.floor(n * step) for n in range(300)) if index < 300]
    assert [index for index in range(300) if index in chosen] == expected
    assert [chosen[position] for position in range(len(expected))] == expected
    assert chosen.count(300) == len(expected)


@pytest.mark.parametrize(
    "video_fps, options, step",
    [
        (12, {"fps": 5}, Fraction(12, 5)),
        (30000 / 1001, {"fps": 10}, Fraction(3000, 1001)),
        (12, {"fps": 100}, None),
        (12, {"stride": 3}, 3),
        (None, {"stride": 1}, None),
        (None, {}, None),
    ],
)
def test_frames_by_rate_or_stride(video_fps, options, step):
    source = FrameList([], "clip")
    source.fps = video_fps
    assert sample_frames(source, **options) == (None if step is None else EveryNth(step))

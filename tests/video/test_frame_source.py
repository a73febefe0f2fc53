import pytest

from vita_hf.video.frame_source import EveryNth, FramesPerSecond, sample_frames
from vita_hf.video.sources import FrameList


def indices(source, choice):
    return [frame.index for frame in source.read(choice)]


def of_rate(fps, num_frames=300):
    source = FrameList(range(num_frames), "clip")
    source.fps = fps
    return source


@pytest.mark.parametrize("step", [1, 2, 7, 299, 300, 1000])
def test_every_nth(step):
    source = of_rate(None)
    expected = list(range(0, 300, step))
    assert indices(source, EveryNth(step)) == expected
    assert EveryNth(step).count(source) == len(expected)


@pytest.mark.parametrize(
    "video_fps, rate, expected",
    [
        (12, 5, [0, 2, 4, 7, 9, 12]),  # on the screen at 0, 0.2, 0.4, … s
        (12, 12, range(300)),
        (12, 100, range(300)),
        (30, 10, range(0, 300, 3)),
        (30000 / 1001, 30, range(300)),
        (25, 0.5, range(0, 300, 50)),
        (30, 0.01, [0]),
    ],
)
def test_frames_per_second(video_fps, rate, expected):
    source = of_rate(video_fps)
    chosen = indices(source, FramesPerSecond(rate))
    assert chosen[: len(expected)] == list(expected)
    assert abs(len(chosen) - FramesPerSecond(rate).count(source)) <= 1


def of_times(times):
    source = FrameList(range(len(times)), "clip")
    frames = [frame._replace(time=time) for frame, time in zip(source.read(), times)]
    source._frame = frames.__getitem__
    return source


@pytest.mark.parametrize(
    "times, rate, expected",
    [
        # Fast at first, then one frame a second
        ([0, 0.02, 0.04, 0.06, 0.08, 0.1, 1, 2, 3, 4], 1, [0, 6, 7, 8, 9]),
        ([0, 0.02, 0.04, 0.06, 0.08, 0.1, 1, 2, 3, 4], 25, [0, 2, 4, 5, 6, 7, 8, 9]),
        # 30 frames a second, rounded to milliseconds as in Matroska
        ([round(index / 30, 3) for index in range(60)], 15, range(0, 60, 2)),
        ([round(index / 30, 3) for index in range(60)], 30, range(60)),
        # The picture begins after the sound.
        ([5, 5.5, 6, 6.5, 7], 1, [0, 2, 4]),
        ([3.7], 1, [0]),
    ],
)
def test_frames_per_second_of_a_variable_rate(times, rate, expected):
    assert indices(of_times(times), FramesPerSecond(rate)) == list(expected)


def test_frames_by_rate_or_stride():
    assert sample_frames(of_rate(12), fps=5) == FramesPerSecond(5)
    assert sample_frames(of_rate(None), stride=3) == EveryNth(3)
    assert sample_frames(of_rate(None), stride=1) is sample_frames(of_rate(12)) is None
    with pytest.raises(
        ValueError, match="clip does not state its frame rate: pass stride, not fps, or pass frame_rate"
    ):
        sample_frames(of_rate(None), fps=5)

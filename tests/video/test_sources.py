import numpy as np
import pytest
from PIL import Image

from vita_hf.video.sources import FrameIterator, FrameList, open_video, split_videos


def test_files_are_checked_before_the_first_is_used(tmp_path):
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    frames = FrameList([tmp_path / name for name in names], "clip")
    frames.check()
    Image.new("RGB", (20, 30)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"clip, frame 2 \(.*c\.png\): .* this one is 30×20, the first is 20×30"):
        frames.check()
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(ValueError, match=r"b\.png cannot be decoded as an image"):
        frames.check()
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image file not found: .*b\.png"):
        frames.check()


def test_frames_of_lists_and_iterators():
    items = list("abcdef")
    assert list(FrameList(items, "x").frames([4, 1])) == ["e", "b"]
    assert list(FrameList(items, "x").frames({4, 1})) == ["b", "e"]
    frames = FrameIterator(iter(items), "x")
    assert list(frames.frames({4, 1})) == ["b", "e"]
    with pytest.raises(ValueError, match="x is an iterator, which gives its frames only once"):
        frames.frames()
    with pytest.raises(ValueError, match="x is an iterator, whose frames cannot be counted"):
        frames.count_frames()


def test_what_is_open_stays_open():
    source = FrameList([np.zeros((2, 2, 3), np.uint8)], "x")
    assert open_video(source, "y", "pyav") is source
    assert split_videos(source) == [source]

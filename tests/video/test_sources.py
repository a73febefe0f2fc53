"""What is known of a video before it is decoded, and what is read of it."""

import numpy as np
import pytest
from PIL import Image

from vita_hf.video.images import image_size, read_image
from vita_hf.video.reader import VideoReader
from vita_hf.video.sources import FrameIterator, FrameList, open_video, split_videos


def save_upright(path, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation, expected", [(1, (20, 30)), (3, (20, 30)), (6, (30, 20)), (8, (30, 20))])
def test_size_of_an_image_turned_upright(tmp_path, orientation, expected):
    assert image_size(save_upright(tmp_path / "image.jpg", (30, 20), orientation)) == expected


def test_files_are_checked_before_the_first_is_used(tmp_path):
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    frames = FrameList([tmp_path / name for name in names], "clip")
    frames.check()
    save_upright(tmp_path / "c.png", (30, 20), 6)
    with pytest.raises(ValueError, match=r"clip, frame 2 \(.*c\.png\): .* this one is 30×20, the first is 20×30"):
        frames.check()
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(ValueError, match=r"b\.png can't be decoded as an image"):
        frames.check()
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image file not found: .*b\.png"):
        frames.check()


def test_length_of_a_video_file(tmp_path):
    """MP4 counts its frames; Matroska says only how long it is."""
    av = pytest.importorskip("av")
    for name in ("video.mp4", "video.mkv"):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=5)
            stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
            for _ in range(13):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        reader = VideoReader(tmp_path / name)
        assert (reader.length, reader.fps, reader.count_frames(), reader.rereadable) == (13, 5, 13, True)


def test_frames_of_lists_and_iterators():
    items = list("abcdef")
    assert list(FrameList(items, "x").frames([4, 1])) == ["e", "b"]
    assert list(FrameList(items, "x").frames({4, 1})) == ["b", "e"]
    frames = FrameIterator(iter(items), "x")
    assert list(frames.frames({4, 1})) == ["b", "e"]
    with pytest.raises(ValueError, match="x is an iterator, which gives its frames only once"):
        frames.frames()
    with pytest.raises(ValueError, match="x is an iterator, whose frames can't be counted"):
        frames.count_frames()


def test_what_is_open_stays_open():
    source = FrameList([np.zeros((2, 2, 3), np.uint8)], "x")
    assert open_video(source, "y", "pyav") is source
    assert split_videos(source) == [source]


def test_addresses_that_cannot_be_reached():
    with pytest.raises(OSError, match=r"can't download http://127\.0\.0\.1:9/image\.png: "):
        read_image("http://127.0.0.1:9/image.png")

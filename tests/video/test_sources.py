import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.videos import make_frames, random_video, write_images
from vita_hf.video.sources import FrameIterator, FrameList, list_videos, open_video, refuse_live_sources, split_videos


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


def test_times_of_images_follow_from_a_rate():
    for video in (random_video(), iter(random_video())):
        source = open_video(video, frame_rate=4)
        assert [frame.time for frame in source.read()] == [0, 0.25, 0.5]
    assert [frame.time for frame in open_video(random_video()).read()] == [None] * 3


# ---------------------------------------------------------------- folders


def folder_with(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if Path(name).suffix in (".jpg", ".png"):
            Image.new("RGB", (30, 20)).save(path / name)
        else:
            (path / name).touch()
    return path


@pytest.mark.parametrize(
    "names, videos, left_out",
    [
        (["a.mp4", "b.ts", "c.MTS", "d.3gp", "e.flv"], ["a.mp4", "b.ts", "c.MTS", "d.3gp", "e.flv"], []),
        (["a.mp4", "b.mp4", "cover.jpg", ".hidden.mp4"], ["a.mp4", "b.mp4"], ["cover.jpg"]),
        (["a.mp4", "frames/1.jpg", "notes.txt", "empty/notes.txt"], ["a.mp4", "frames"], ["empty", "notes.txt"]),
        (["one/1.jpg", "two/1.jpg", "cover.jpg"], ["one", "two"], ["cover.jpg"]),
        (["1.jpg", "2.jpg", "masks/1.png"], ["."], []),
        (["one/a.mp4", "one/sheet.png", "two/1.jpg", "b.mp4"], ["b.mp4", "two"], ["one"]),
        (["1.jpg"], ["."], []),
        (["notes.txt"], [], []),
    ],
)
def test_videos_of_a_folder(tmp_path, caplog, names, videos, left_out):
    folder = folder_with(tmp_path / "folder", *names)
    assert list_videos(folder) == [folder / name for name in videos]
    said = f"{folder}: {len(left_out)} of its entries are left out: {', '.join(left_out)}"
    assert [record.message for record in caplog.records] == ([said] if left_out else [])


def test_a_folder_of_videos_is_not_one_video(tmp_path):
    folder = folder_with(tmp_path / "trip", "a.mp4", "b.mp4", "cover.jpg")
    with pytest.raises(ValueError, match=r"trip is a folder of videos \(a\.mp4, b\.mp4\): pass them instead"):
        open_video(folder)


def test_what_is_left_out_of_a_folder_of_frames_is_named(tmp_path, caplog):
    names = ["0.jpg", "1.jpg", "2.jpg", "0.png", "1.png", "3.png", "notes.txt"]
    frames = open_video(folder_with(tmp_path / "frames", *names), "clip")
    assert [path.name for path in frames.frames()] == ["0.jpg", "1.jpg", "2.jpg", "3.png"]
    (record,) = caplog.records
    assert record.message.endswith("frames: 3 of its entries are left out: 0.png, 1.png, notes.txt")


# ---------------------------------------------------------------- animated images


@pytest.fixture
def animation(tmp_path):
    frames = [Image.fromarray(frame) for frame in make_frames()]
    path = tmp_path / "animation.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 0, 200, 100, 150], lossless=True)
    return path


def test_animated_images(animation):
    for video in (animation, str(animation), Image.open(animation)):
        source = open_video(video)
        assert (source.length, source.timed) == (5, True)
        for _ in range(2):
            frames = list(source.read())
            # Browsers show frames without a duration for a tenth of a second.
            np.testing.assert_allclose([frame.time for frame in frames], [0, 0.1, 0.2, 0.4, 0.5])
            np.testing.assert_array_equal([np.asarray(frame.image.convert("RGB")) for frame in frames], make_frames())
    assert split_videos([animation, animation]) == [animation, animation]
    assert list_videos(animation.parent) == [animation]


def test_of_a_damaged_animation_the_rest_is_used(tmp_path, caplog):
    frames = [Image.fromarray(frame) for frame in make_frames()]
    animation = tmp_path / "animation.png"
    frames[0].save(animation, save_all=True, append_images=frames[1:])
    animation.write_bytes(animation.read_bytes()[: int(0.7 * animation.stat().st_size)])
    source = open_video(animation, "clip")
    counts = [sum(1 for _ in source.read()) for _ in range(2)]
    assert counts[0] == counts[1] and 0 < counts[0] < 5
    (record,) = caplog.records
    message = f"clip is damaged from frame {counts[0]} on: "
    assert record.message.startswith(message)
    with pytest.raises(ValueError, match=message):
        list(open_video(animation, "clip", strict=True).read())


def test_pages_of_a_tiff_have_no_times(tmp_path):
    pages = [Image.fromarray(frame) for frame in make_frames()]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    source = open_video(tmp_path / "stack.tif")
    assert (source.length, source.timed, [frame.time for frame in source.read()]) == (5, False, [None] * 5)
    assert [frame.time for frame in open_video(tmp_path / "stack.tif", frame_rate=2).read()] == [0, 0.5, 1, 1.5, 2]


def test_an_animation_among_images_is_refused(animation):
    (still,) = write_images(animation.parent / "frames", make_frames(1)).iterdir()
    with pytest.raises(
        ValueError, match=r"animation\.webp: expected one picture, got an animation of 5: pass it alone"
    ):
        FrameList([still, animation], "clip").check()
    with pytest.raises(ValueError, match=r"mixes images \(item 0\) and videos \(item 1\)"):
        split_videos([still, animation])


# ---------------------------------------------------------------- live sources


@pytest.mark.parametrize("name", ["-", "0", "rtsp://camera/stream", "udp://239.0.0.1:1234", "pipe", "file:///clip.mp4"])
def test_live_sources(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    message = (
        f"{name} cannot be read: videos are files, folders and http.* addresses; record cameras, pipes and streams"
    )
    with pytest.raises(ValueError, match=message):
        open_video(name)
    with pytest.raises(ValueError, match=message):
        refuse_live_sources(name)


def test_a_file_may_have_the_name_of_a_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("0", "-"):
        Path(name).touch()
        refuse_live_sources(name)

import sys
import tracemalloc

import av
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from helpers.tracks import crossing, instances
from helpers.videos import encode_video
from vita_hf.tracks.drawing import render
from vita_hf.tracks.instances import VideoInstances
from vita_hf.tracks.painter import Painter
from vita_hf.tracks.palette import track_color
from vita_hf.video.reader import VideoReader
from vita_hf.video.sources import open_video


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_folder(path):
    return np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])


@pytest.mark.parametrize("source", ["array", "tensor", "folder", "mp4"])
def test_mp4_shows_the_masks_of_the_json(tmp_path, source):
    frames, masks = crossing(96, 128, 8)
    result = instances(masks, fps=12.5)
    video = frames
    if source == "tensor":
        video = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    elif source == "folder":
        video = instances(masks[:0]).render(frames, tmp_path / "frames")
    elif source == "mp4":
        video = instances(masks[:0]).render(frames, tmp_path / "video.mp4")
    assert result.render(video, tmp_path / "overlay.mp4", labels=False) == tmp_path / "overlay.mp4"
    result.to_json(tmp_path / "results.json")

    played, tracks = decode(tmp_path / "overlay.mp4"), VideoInstances.from_json(tmp_path / "results.json")
    assert VideoReader(tmp_path / "overlay.mp4").fps == 12.5
    assert played.shape == frames.shape
    for frame in range(8):
        blended = [(frames[frame, 0, 0] + np.array(track_color(track))) / 2 for track in range(2)]
        seen = tracks.masks_at(frame).numpy()
        for track in range(2):
            inside = ndimage.binary_erosion(seen[track], iterations=4)
            if inside.any():
                color = played[frame][inside].mean(0)
                distances = [np.linalg.norm(color - other) for other in blended]
                assert np.argmin(distances) == track
                assert distances[track] < 8
        outside = ~ndimage.binary_dilation(seen.any(0), iterations=4)
        assert abs(played[frame][outside].mean(0) - frames[frame, 0, 0]).max() < 3
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("name", ["overlay.gif", "overlay"])
def test_gif_and_png_are_exact(tmp_path, name):
    frames, masks = crossing()
    result = instances(masks)
    labels = name == "overlay"  # smooth letters are more colors than a gif has
    path = result.render(frames, tmp_path / name, labels=labels)
    painter = Painter(result, labels=labels)
    expected = np.stack([painter.draw(image, frame) for frame, image in enumerate(frames)])
    if path.suffix:
        with Image.open(path) as image:
            got = np.stack([np.asarray(_seek(image, frame).convert("RGB")) for frame in range(image.n_frames)])
            assert image.info["duration"] == 100  # ms, where nothing says how fast
    else:
        assert [file.name for file in sorted(path.iterdir())] == [f"{frame:05d}.png" for frame in range(6)]
        got = read_folder(path)
    np.testing.assert_array_equal(got, expected)


def _seek(image, frame):
    image.seek(frame)
    return image


def test_gif_of_many_colors_is_close(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    frames = np.stack([ndimage.gaussian_filter(frame, (6, 6, 0)) for frame in frames])
    assert len(np.unique(frames[0].reshape(-1, 3), axis=0)) > 256
    instances(np.zeros((0, 2, 64, 64), dtype=bool)).render(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        got = np.stack([np.asarray(_seek(image, frame).convert("RGB")) for frame in range(2)])
    assert np.abs(got.astype(int) - frames).mean() < 4


@pytest.mark.parametrize("height, width", [(97, 129), (96, 129), (97, 128), (1, 1), (2, 200)])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_odd_sizes_and_single_frames(tmp_path, height, width, num_frames):
    frames, masks = crossing(height, width, num_frames)
    instances(masks).render(frames, tmp_path / "a.mp4", labels=False)
    played = decode(tmp_path / "a.mp4")
    assert played.shape == (num_frames, height + height % 2, width + width % 2, 3)
    outside = ~masks.any(0)
    outside[:, :, : width // 2] = False
    for frame in range(num_frames):
        far = ndimage.binary_erosion(outside[frame], iterations=4, border_value=1)
        if far.any():  # the last row and column too
            assert abs(played[frame, :height, :width][far].mean(0) - frames[frame, 0, 0]).max() < 3


def test_no_tracks(tmp_path):
    frames, masks = crossing()
    path = instances(masks[:0]).render(frames, tmp_path / "png")
    np.testing.assert_array_equal(read_folder(path), frames)


def test_many_tracks(tmp_path):
    frames = np.full((2, 60, 80, 3), 128, dtype=np.uint8)
    masks = np.zeros((300, 2, 60, 80), dtype=bool)
    for track in range(300):
        y, x = divmod(track, 20)
        masks[track, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = True
    path = instances(masks).render(frames, tmp_path / "png", alpha=1, labels=False)
    picture = read_folder(path)[1]
    for track in range(300):
        assert (picture[masks[track, 1]] == track_color(track)).all()


def test_frames_of_a_thinned_out_video(tmp_path):
    frames, masks = crossing(num_frames=6)
    result = instances(masks[:, [1, 3, 5]], frame_indices=[1, 3, 5], fps=20.0)
    path = result.render(frames, tmp_path / "png", labels=False)
    assert sorted(file.name for file in path.iterdir()) == ["00001.png", "00003.png", "00005.png"]
    painter = Painter(result, labels=False)
    expected = [painter.draw(frames[number], frame) for frame, number in enumerate([1, 3, 5])]
    np.testing.assert_array_equal(read_folder(path), expected)
    result.render(frames, tmp_path / "a.mp4")
    assert VideoReader(tmp_path / "a.mp4").fps == 10  # as fast as the video was
    result.render(frames, tmp_path / "a.mp4", fps=3)
    assert VideoReader(tmp_path / "a.mp4").fps == 3


@pytest.mark.parametrize("scale", [2, 0.5, 0.25])
def test_scaled_pictures(tmp_path, scale):
    frames, masks = crossing(96, 128)
    instances(masks).render(frames, tmp_path / "png", scale=scale, alpha=1, contours=False, labels=False)
    pictures = read_folder(tmp_path / "png")
    assert pictures.shape[1:3] == (round(96 * scale), round(128 * scale))
    # The middle of every pixel
    y, x = ((np.arange(round(side * scale)) / scale + 0.5 / scale).astype(int) for side in (96, 128))
    for track in range(2):
        assert (pictures[masks[track][:, y][:, :, x]] == track_color(track)).all()


def test_speed_is_the_videos(tmp_path):
    frames, masks = crossing(96, 128)
    instances(masks[:0]).render(frames, tmp_path / "video.mp4", fps=30000 / 1001)
    instances(masks).render(tmp_path / "video.mp4", tmp_path / "overlay.mp4")
    assert VideoReader(tmp_path / "overlay.mp4").fps == 30000 / 1001


TIMES = [0, 0.02, 0.04, 0.06, 0.08, 0.1, 1, 2, 3, 4]


def shown(path):
    """Times of the frames and how long the file plays, in seconds."""
    with av.open(str(path)) as container:
        duration = container.duration / 1e6
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)], duration


@pytest.mark.parametrize("name", ["overlay.mp4", "overlay.gif"])
def test_an_overlay_keeps_the_times_of_the_video(tmp_path, name):
    frames, masks = crossing(96, 128, 10)
    video = encode_video(tmp_path / "phone.mp4", frames, TIMES)
    instances(masks).render(video, tmp_path / name)
    times, duration = shown(tmp_path / name)
    np.testing.assert_allclose(times, TIMES, atol=0.006 if name.endswith("gif") else 1e-4)
    assert duration == pytest.approx(5, abs=0.05)  # the last frame is shown as long as the one before
    # Of some of the frames, each at its time
    chosen = [0, 6, 7, 9]
    some = instances(masks[:, chosen], frame_indices=chosen, frame_times=[TIMES[index] for index in chosen])
    some.render(video, tmp_path / name)
    np.testing.assert_allclose(shown(tmp_path / name)[0], [0, 1, 2, 4], atol=0.006)
    # At a rate that is asked for
    instances(masks).render(video, tmp_path / name, fps=5)
    np.testing.assert_allclose(shown(tmp_path / name)[0], np.arange(10) / 5, atol=1e-4)


def beeps(seconds, at, rate=48_000):
    """Silence (2, n) with a tenth of a second of 440 Hz at each of these times."""
    sound = np.zeros((2, int(seconds * rate)), dtype=np.float32)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate // 10) / rate)
    for time in at:
        sound[:, int(time * rate) :][:, : len(tone)] = tone
    return sound


def heard(path, rate=48_000):
    """When beeps begin, and when the sound ends, in seconds."""
    with av.open(str(path)) as container:
        blocks = list(container.decode(audio=0))
    loud = [(block.time + np.flatnonzero(np.abs(block.to_ndarray()[0]) > 0.1) / rate) for block in blocks]
    loud = np.concatenate(loud)
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-1) > 0.05)]
    return starts, blocks[-1].time + blocks[-1].samples / rate


@pytest.mark.parametrize("name, codec", [("video.mp4", "aac"), ("video.webm", "libopus"), ("video.ts", "mp2")])
def test_an_overlay_keeps_the_sound_of_the_video(tmp_path, name, codec):
    frames, masks = crossing(96, 128, 20)
    encoder = "libvpx" if name.endswith("webm") else "libx264"
    video = encode_video(tmp_path / name, frames, rate=10, codec=encoder, sound=(codec, beeps(2, [0.5, 1.5])))
    instances(masks).render(video, tmp_path / "overlay.mp4")
    starts, end = heard(tmp_path / "overlay.mp4")
    np.testing.assert_allclose(starts, [0.5, 1.5], atol=0.05)
    assert end == pytest.approx(2, abs=0.1)
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    # Only what belongs to the frames
    some = instances(masks[:, 10:], frame_indices=range(10, 20), frame_times=[1 + index / 10 for index in range(10)])
    some.render(video, tmp_path / "overlay.mp4")
    np.testing.assert_allclose(heard(tmp_path / "overlay.mp4")[0], [0.5], atol=0.05)
    some = instances(masks[:, :10], frame_indices=range(10))
    some.render(video, tmp_path / "overlay.mp4")
    assert heard(tmp_path / "overlay.mp4")[1] == pytest.approx(1, abs=0.05)
    # No sound at another speed, and none in a gif
    for overlay, options in (("overlay.mp4", {"fps": 5}), ("overlay.gif", {})):
        instances(masks).render(video, tmp_path / overlay, **options)
        with av.open(str(tmp_path / overlay)) as container:
            assert not container.streams.audio


def test_damaged_sound_costs_no_overlay(tmp_path, caplog):
    frames, masks = crossing(96, 128, 20)
    video = encode_video(tmp_path / "video.mp4", frames, rate=10, sound=("aac", beeps(2, [0.5, 1.5])))
    data = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    for packet in packets[len(packets) // 2 :]:
        data[packet.pos : packet.pos + packet.size] = bytes([255]) * packet.size
    video.write_bytes(data)
    instances(masks).render(video, tmp_path / "overlay.mp4")
    assert len(decode(tmp_path / "overlay.mp4")) == 20
    np.testing.assert_allclose(heard(tmp_path / "overlay.mp4")[0], [0.5], atol=0.05)
    assert "the sound of" in caplog.text and "video.mp4 is damaged and ends early" in caplog.text


def test_errors_of_the_encoder_are_words(tmp_path, monkeypatch):
    def fail(*arguments):
        raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input", "x")

    frames, masks = crossing(96, 128)
    monkeypatch.setattr(Painter, "draw", fail)
    with pytest.raises(OSError, match=r"a\.mp4 cannot be written: Invalid data found when processing input$"):
        instances(masks).render(frames, tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "video, name, options, error, message",
    [
        (crossing(num_frames=5)[0], "a.mp4", {}, ValueError, "the video has no frame 5, which the result has masks"),
        (
            crossing(96)[0],
            "a.gif",
            {},
            ValueError,
            "the video, frame 0: expected 97×129 pixels like the masks, got 96×",
        ),
        (
            crossing()[0],
            "a.avi",
            {},
            ValueError,
            r"a\.avi: expected a name that ends in \.mp4 or \.gif, or has no suff",
        ),
        (crossing()[0], "full", {}, FileExistsError, "full is a folder that is not empty"),
        (crossing()[0], "full/file", {}, FileExistsError, "full/file is a file: choose another name"),
        (crossing()[0], "full.mp4", {}, FileExistsError, r"full\.mp4 is a folder: choose another output"),
        (crossing()[0], "a.mp4", {"alpha": 1.5}, ValueError, r"alpha must be between 0 and 1, got 1\.5"),
        (crossing()[0], "a.mp4", {"fps": 0}, ValueError, "fps must be above 0, got 0"),
        ([crossing()[0]] * 2, "a.mp4", {}, TypeError, "expected a list of images, but item 0 is of type ndarray"),
        (crossing()[0], "a.mp4", {"scale": -1}, ValueError, "scale must be above 0, got -1"),
        ("missing.mp4", "a.mp4", {}, FileNotFoundError, r"missing\.mp4"),
    ],
)
def test_nothing_is_written_after_an_error(tmp_path, video, name, options, error, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "full.mp4").mkdir()
    with pytest.raises(error, match=message):
        instances(crossing()[1]).render(video, tmp_path / name, **options)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "full.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "png"])
def test_an_interrupted_rendering_leaves_what_was_there(tmp_path, monkeypatch, name):
    frames, masks = crossing()
    (tmp_path / "a.mp4").write_text("before")

    def interrupt(painter, image, frame, size):
        if frame == 3:
            raise KeyboardInterrupt
        return image

    monkeypatch.setattr(Painter, "draw", interrupt)
    with pytest.raises(KeyboardInterrupt):
        render(instances(masks), frames, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "before"


def test_memory_does_not_grow_with_the_video(tmp_path):
    def peak(num_frames, name):
        frame = np.full((240, 320, 3), 90, dtype=np.uint8)
        video = [frame] * num_frames  # takes no memory of its own
        result = instances(np.zeros((0, num_frames, 240, 320), dtype=bool))
        tracemalloc.start()
        render(result, video, tmp_path / f"{num_frames}{name}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    for name in ("", ".mp4", ".gif"):
        peak(2, f"-warm{name}")
        assert peak(40, name) < peak(4, name) + frame_bytes(240, 320)


def frame_bytes(height, width):
    return 3 * height * width


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_terminals(tmp_path, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    frames, masks = crossing()
    source = open_video(frames, name="videos/clip.mp4")
    for progress in (False, None, True):
        render(instances(masks), source, tmp_path / f"{progress}.gif", progress=progress)
        printed = capsys.readouterr().err
        assert ("\rclip.mp4: drawing: 100%" in printed) == (terminal and progress is not False)


@pytest.mark.parametrize("fps", [1e-300, 1e300])
def test_rates_that_no_file_can_have(tmp_path, fps):
    frames, masks = crossing(16, 16, 2)
    with pytest.raises(ValueError, match="expected a rate of 1/1000 to 1000 frames per second, got 1e"):
        instances(masks, fps=fps).render(frames, tmp_path / "overlay.mp4")
    assert not (tmp_path / "overlay.mp4").exists()


def test_times_that_no_file_can_have(tmp_path):
    frames, masks = crossing(16, 16, 2)
    with pytest.raises(ValueError, match="a video file cannot have a frame at 1e\\+200 s"):
        instances(masks, fps=5.0, frame_times=[0.0, 1e200]).render(frames, tmp_path / "overlay.mp4")

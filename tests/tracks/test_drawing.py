import itertools
import tracemalloc

import av
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from vita_hf.ops.rle import encode_masks
from vita_hf.tracks import drawing as visualization
from vita_hf.tracks.drawing import Painter, render
from vita_hf.tracks.instances import VideoInstances
from vita_hf.tracks.palette import PALETTE, text_color, track_color
from vita_hf.video.reader import VideoReader


def instances(masks, **fields):
    """Instances with these masks (k, T, h, w), as run lengths; earlier ones score higher."""
    masks = torch.as_tensor(masks)
    count = len(masks)
    return VideoInstances(
        **{
            "scores": torch.linspace(0.9, 0.5, count),
            "labels": torch.arange(count) % 3,
            "masks": [encode_masks(track) for track in masks],
            "query_indices": torch.arange(count),
            "size": tuple(masks.shape[2:]),
            "num_frames": masks.shape[1],
            "id2label": {0: "person", 1: "dog", 2: "cat"},
            **fields,
        }
    )


def crossing(height=97, width=129, num_frames=6):
    """A grey video and two discs that cross each other, the first in front: frames (T, h, w, 3), masks (2, T, h, w)."""
    y, x = np.mgrid[:height, :width]
    masks = np.zeros((2, num_frames, height, width), dtype=bool)
    for frame in range(num_frames):
        shift = width * (0.2 + 0.6 * frame / max(1, num_frames - 1))
        for track, center in enumerate((shift, width - shift)):
            masks[track, frame] = (x - center) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    masks[1] &= ~masks[0]
    frames = np.repeat(np.linspace(60, 180, num_frames).astype(np.uint8), height * width * 3)
    return frames.reshape(num_frames, height, width, 3), masks


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_folder(path):
    return np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])


# Colours


def cielab(colors, matrix):
    """CIELAB of sRGB colours (n, 3) in 0 … 255, seen through a matrix on linear RGB."""
    srgb = np.asarray(colors) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(matrix), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.transpose(to_xyz) / np.sum(to_xyz, axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency",
# severity 1.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def closest(colors, vision):
    lab = cielab(colors, VISIONS[vision])
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_told_apart(vision):
    # A CIELAB distance of 2.3 is just noticeable.
    assert closest(PALETTE[:8], vision) > 16
    assert closest(PALETTE, vision) > 15


def test_simulation_confuses_what_colour_blind_people_confuse():
    red, green = (196, 67, 0), (118, 118, 0)
    assert closest([red, green], "normal") > 50
    assert closest([red, green], "protanopia") < closest([red, green], "normal") / 2
    assert closest([red, green], "deuteranopia") < closest([red, green], "normal") / 2


def test_text_is_readable_on_every_colour():
    def luminance(color):
        srgb = np.asarray(color) / 255
        return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for color in PALETTE:
        low, high = sorted([luminance(color), luminance(text_color(color))])
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.1, level AA


def test_colour_stays_with_the_track():
    frames, masks = crossing()
    result = instances(masks, track_ids=torch.tensor([1, 20]))
    both = Painter(result, alpha=1, labels=False).draw(frames[0], 0)
    alone = Painter(result[1], alpha=1, labels=False).draw(frames[0], 0)
    assert track_color(20) != track_color(1)
    for picture in (both, alone):
        assert (picture[masks[1, 0]] == track_color(20)).all()
    assert (both[masks[0, 0]] == track_color(1)).all()
    assert (alone[~masks[1, 0]] == frames[0][~masks[1, 0]]).all()


# One frame


def test_masks_are_blended_and_outlined():
    frame = np.full((9, 11, 3), 100, dtype=np.uint8)
    frame.setflags(write=False)
    mask = np.zeros((1, 1, 9, 11), dtype=bool)
    mask[0, 0, 2:7, 3:9] = True
    picture = Painter(instances(mask), alpha=0.25, labels=False).draw(frame, 0)
    inner = np.zeros((9, 11), dtype=bool)
    inner[3:6, 4:8] = True
    assert (picture[inner] == np.rint(75 + 0.25 * np.array(track_color(0)))).all()
    assert (picture[mask[0, 0] & ~inner] == track_color(0)).all()
    assert (picture[~mask[0, 0]] == 100).all()
    filled = Painter(instances(mask), alpha=0.25, contours=False, labels=False).draw(frame, 0)
    assert (filled[mask[0, 0]] == np.rint(75 + 0.25 * np.array(track_color(0)))).all()


def test_best_score_is_on_top():
    frame = np.zeros((4, 6, 3), dtype=np.uint8)
    masks = np.zeros((2, 1, 4, 6), dtype=bool)
    masks[0, 0, :, :4] = masks[1, 0, :, 2:] = True
    result = instances(masks, scores=torch.tensor([0.3, 0.8]))
    picture = Painter(result, alpha=1, labels=False).draw(frame, 0)
    assert (picture[:, :2] == track_color(0)).all() and (picture[:, 2:] == track_color(1)).all()


def solid_boxes(picture, color):
    """Bounding boxes (height, width) of the parts of a picture in exactly this colour."""
    parts, _ = ndimage.label((picture == color).all(-1))
    return [(y.stop - y.start, x.stop - x.start) for y, x in ndimage.find_objects(parts)]


def test_labels_stay_inside_and_apart():
    # Five tracks, all at the upper edge and on one another: their labels need room of their own.
    frame = np.full((240, 320, 3), 255, dtype=np.uint8)
    masks = np.zeros((5, 1, 240, 320), dtype=bool)
    for track in range(5):
        masks[track, 0, 0, 280 + track] = True
    result = instances(masks)
    picture = Painter(result, contours=False).draw(frame, 0)
    sizes = [max(solid_boxes(picture, track_color(track)), key=np.prod) for track in range(5)]
    heights = {height for height, _ in sizes}
    assert len(heights) == 1 and heights.pop() >= 11
    # All are written in full, and none covers a part of another.
    assert all(width >= 55 for _, width in sizes)
    unlabelled = Painter(result, contours=False, labels=False).draw(frame, 0)
    assert all(len(solid_boxes(unlabelled, track_color(track))) == 0 for track in range(5))


def test_labels_of_tracks_as_high_as_the_frame():
    frame = np.full((240, 320, 3), 255, dtype=np.uint8)
    masks = np.zeros((8, 1, 240, 320), dtype=bool)
    for track in range(8):
        masks[track, 0, :, 150 + track] = True
    picture = Painter(instances(masks), alpha=0, contours=False).draw(frame, 0)
    sizes = [max(solid_boxes(picture, track_color(track)), key=np.prod) for track in range(8)]
    assert len({height for height, _ in sizes}) == 1
    assert all(width >= 55 for _, width in sizes)


def test_best_label_is_on_top_where_there_is_no_room():
    masks = np.zeros((5, 1, 20, 120), dtype=bool)
    masks[range(5), 0, 10, range(50, 55)] = True
    picture = Painter(instances(masks), alpha=0, contours=False).draw(np.zeros((20, 120, 3), dtype=np.uint8), 0)
    # A label is 14 lines high, so that there is room for one only; #0 person 0.90 is wider than #1 dog 0.80.
    assert max(solid_boxes(picture, track_color(0)), key=np.prod)[0] == 14


def test_labels_shrink_with_the_frame():
    def label_width(width):
        mask = np.zeros((1, 1, 64, width), dtype=bool)
        mask[0, 0, 40] = True
        painter = Painter(instances(mask), alpha=0, contours=False)
        picture = painter.draw(np.zeros((64, width, 3), dtype=np.uint8), 0)
        return max((box[1] for box in solid_boxes(picture, track_color(0))), default=0)

    full, named, numbered, none = (label_width(width) for width in (200, 64, 30, 8))
    assert 64 < full and 30 < named <= 64 and 8 < numbered <= 30 and none == 0


# Files


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
    labels = name == "overlay"  # smooth letters are more colours than a gif has
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


def test_gif_of_many_colours_is_close(tmp_path):
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
        ([crossing()[0]] * 2, "a.mp4", {}, ValueError, "expected the one video that the tracks were found in, got 2"),
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

    monkeypatch.setattr(visualization.Painter, "draw", interrupt)
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


def test_progress_is_shown_on_request(tmp_path, capsys):
    frames, masks = crossing()
    render(instances(masks), frames, tmp_path / "quiet.gif")
    assert capsys.readouterr().err == ""
    render(instances(masks), frames, tmp_path / "loud.gif", progress=True)
    assert "loud.gif: 100%" in capsys.readouterr().err

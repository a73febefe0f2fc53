import numpy as np
import pytest
import torch
from PIL import Image

from vita_hf.tracks.contact_sheet import ContactSheet, plot
from vita_hf.tracks.instances import VideoInstances
from vita_hf.tracks.palette import track_color


def instances(seen, size=(90, 160), **fields):
    """Tracks that each fill a stripe of the frames in which they are `seen` (k, T)."""
    seen = torch.as_tensor(seen, dtype=torch.bool)
    count, num_frames = seen.shape
    masks = torch.zeros(count, num_frames, *size, dtype=torch.bool)
    for track in range(count):
        stripe = slice(track * size[1] // count, (track + 1) * size[1] // count)
        masks[track, :, :, stripe] = seen[track, :, None, None]
    return VideoInstances(
        scores=torch.linspace(0.9, 0.5, count),
        labels=torch.zeros(count, dtype=torch.int64),
        masks=masks,
        query_indices=torch.arange(count),
        size=size,
        num_frames=num_frames,
        id2label={0: "person"},
        **fields,
    )


def gray_video(num_frames, size=(90, 160)):
    """Frame t is of the gray t."""
    return np.repeat(np.arange(num_frames, dtype=np.uint8), size[0] * size[1] * 3).reshape(num_frames, *size, 3)


def bar_columns(picture, track, left):
    """Columns right of `left` where the time line has a track's color."""
    pixels = (np.asarray(picture) == track_color(track)).all(-1)
    pixels[:, :left] = False
    return np.flatnonzero(pixels.any(0))


def test_time_line_shows_when_each_track_is_seen():
    seen = np.zeros((3, 100), dtype=bool)
    seen[0] = True
    seen[1, 20:50] = seen[1, 70:80] = True
    result = instances(seen)
    sheet = plot(result, gray_video(100), width=1000)
    time_line = sheet.crop((0, sheet.height - 4 * 24 - 24, 1000, sheet.height))
    left = 40  # past the squares that show the colors
    whole = bar_columns(time_line, 0, left)
    start, length = whole[0] - 1, whole[-1] - whole[0] + 3  # with the outline
    columns = bar_columns(time_line, 1, left)
    gap = np.flatnonzero(np.diff(columns) > 5)
    assert len(gap) == 1
    ends = [columns[0], columns[gap[0]], columns[gap[0] + 1], columns[-1]]
    np.testing.assert_allclose((np.array(ends) - start) / length, [0.2, 0.5, 0.7, 0.8], atol=3 / length)
    assert len(bar_columns(time_line, 2, left)) == 0
    squares = [(np.asarray(time_line)[:, :left] == track_color(track)).all(-1).sum() for track in range(3)]
    assert squares[0] == squares[1] == squares[2] > 100  # the third track is listed although it is never seen


def test_a_single_frame_of_thousands_is_visible():
    seen = np.zeros((1, 3000), dtype=bool)
    seen[0, 1777] = True
    sheet = plot(instances(seen, size=(2, 2)), gray_video(3000, (2, 2)), num_frames=1, width=400)
    assert len(bar_columns(sheet.crop((0, sheet.height - 72, 400, sheet.height)), 0, 40)) == 1


def test_frames_are_evenly_spaced():
    result = instances(np.zeros((0, 15), dtype=bool))
    sheet = np.asarray(plot(result, gray_video(15), num_frames=8, columns=4, width=1280))
    # 4 columns of (1280 - 5 · 12) / 4 pixels, 12 apart
    centers = [
        (12 + 305 // 2 + column * 317, 12 + 50 + row * (172 + 24 + 12)) for row in range(2) for column in range(4)
    ]
    assert [sheet[y, x].tolist() for x, y in centers] == [[frame] * 3 for frame in (0, 2, 4, 6, 8, 10, 12, 14)]


def test_frames_of_a_thinned_out_video():
    result = instances(np.zeros((0, 3), dtype=bool), frame_indices=[4, 9, 14], fps=5.0)
    sheet = np.asarray(plot(result, gray_video(15), columns=3, width=1280))
    assert [sheet[60, x].tolist() for x in (200, 640, 1080)] == [[4] * 3, [9] * 3, [14] * 3]


def test_a_variable_frame_rate():
    """The second half of the frames takes nine tenths of the time."""
    times = [0.01 * frame for frame in range(50)] + [0.5 + 0.09 * frame for frame in range(50)]
    seen = np.zeros((2, 100), dtype=bool)
    seen[0], seen[1, :50] = True, True
    result = instances(seen, frame_times=times)
    chosen = ContactSheet(result, num_frames=5).chosen
    np.testing.assert_allclose([times[frame] for frame in chosen], np.linspace(0, times[-1], 5), atol=0.05)
    sheet = plot(result, gray_video(100), width=1000)
    time_line = sheet.crop((0, sheet.height - 3 * 24 - 24, 1000, sheet.height))
    whole, first_half = (np.ptp(bar_columns(time_line, track, 40)) for track in range(2))
    assert first_half / whole == pytest.approx(0.1, abs=0.01)


def test_masks_are_drawn_over_the_frames():
    result = instances(np.ones((2, 4), dtype=bool))
    sheet = np.asarray(plot(result, gray_video(4), columns=2, width=800))
    height = round(90 * 382 / 160)
    for frame, (x, y) in enumerate([(12, 12), (406, 12), (12, 48 + height), (406, 48 + height)]):
        for track in range(2):
            color = np.rint((frame + np.array(track_color(track))) / 2)
            np.testing.assert_array_equal(sheet[y + height // 2, x + 95 + 191 * track], color)


@pytest.mark.parametrize("size", [(1, 1), (400, 20), (20, 400), (91, 161)])
@pytest.mark.parametrize("count, num_frames", [(0, 1), (1, 1), (40, 5)])
def test_any_size_and_number(tmp_path, size, count, num_frames):
    result = instances(np.ones((count, num_frames)), size)
    sheet = plot(result, gray_video(num_frames, size), tmp_path / "new" / "sheet.png", width=640)
    assert sheet.width == 640
    assert sheet.height >= 24 * max(count, 1)
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(sheet))


def test_a_contact_sheet_beside_an_overlay_needs_no_second_pass(tmp_path):
    result = instances(np.ones((2, 15), dtype=bool))
    frames = iter(gray_video(15))  # can be read only once
    result.render(frames, tmp_path / "frames", contact_sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        np.testing.assert_array_equal(np.asarray(sheet), np.asarray(result.plot(gray_video(15))))
    with pytest.raises(ValueError, match=r"sheet\.mp4: expected the name of an image file"):
        result.render(gray_video(15), tmp_path / "more", contact_sheet=tmp_path / "sheet.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "sheet.png"]


def test_long_names_leave_room_for_the_bars():
    result = instances(np.ones((1, 4)))
    result.id2label = {0: "a very long name of a class " * 20}
    sheet = plot(result, gray_video(4), width=640)
    assert len(bar_columns(sheet.crop((0, sheet.height - 60, 640, sheet.height)), 0, 40)) > 640 / 3


@pytest.mark.parametrize(
    "path, options, message",
    [
        ("a.mp4", {}, r"a\.mp4: expected the name of an image file"),
        ("a", {}, r"a: expected the name of an image file"),
        ("a.png", {"num_frames": 0}, "expected num_frames and columns of at least 1 .* got num_frames=0, columns=4"),
        ("a.png", {"width": 100}, "a width of at least 320, got .* width=100"),
        ("a.png", {"video": gray_video(3)}, "the video has no frame 3, which the result has masks for"),
    ],
)
def test_nothing_is_written_after_an_error(tmp_path, path, options, message):
    arguments = {"video": gray_video(5), "path": tmp_path / path} | options
    with pytest.raises(ValueError, match=message):
        instances(np.ones((1, 5))).plot(**arguments)
    assert list(tmp_path.iterdir()) == []

from functools import cache

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from helpers.tracks import crossing, instances
from vita_hf.tracks import painter
from vita_hf.tracks.painter import Painter
from vita_hf.tracks.palette import track_color


def test_color_stays_with_the_track():
    frames, masks = crossing()
    result = instances(masks, track_ids=torch.tensor([1, 20]))
    both = Painter(result, alpha=1, labels=False).draw(frames[0], 0)
    alone = Painter(result[1], alpha=1, labels=False).draw(frames[0], 0)
    assert track_color(20) != track_color(1)
    for picture in (both, alone):
        assert (picture[masks[1, 0]] == track_color(20)).all()
    assert (both[masks[0, 0]] == track_color(1)).all()
    assert (alone[~masks[1, 0]] == frames[0][~masks[1, 0]]).all()


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
    """Bounding boxes (height, width) of the parts of a picture in exactly this color."""
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
    unlabeled = Painter(result, contours=False, labels=False).draw(frame, 0)
    assert all(len(solid_boxes(unlabeled, track_color(track))) == 0 for track in range(5))


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


def test_overlapping_tracks_equal_a_plain_drawing():
    """Every pixel of tracks that overlap, touch the border or have holes, in two sizes."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    masks = ndimage.gaussian_filter(generator.normal(size=(5, 1, 60, 90)), (0, 0, 4, 4)) > 0.02
    result = instances(masks, scores=torch.tensor([0.4, 0.9, 0.5, 0.9, 0.1]))
    for size in ((60, 90), (600, 900)):
        frame = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))
        rows = np.repeat(np.repeat(plain_rows(result, masks[:, 0]), size[0] // 60, 0), size[1] // 90, 1)
        thickness = max(1, round(size[0] / 240))
        padded = np.pad(rows, thickness, mode="edge")
        shifts = [(y, 0) for y in range(-thickness, thickness + 1)] + [(0, x) for x in range(-thickness, thickness + 1)]
        neighbors = [np.roll(padded, shift, (0, 1))[thickness:-thickness, thickness:-thickness] for shift in shifts]
        edge = (np.array(neighbors) != rows).any(0)
        colors = np.array([track_color(track) for track in range(5)] + [(0, 0, 0)], np.uint8)[rows]
        expected = np.where(edge[..., None], colors, np.rint(frame * np.float32(0.7) + colors * np.float32(0.3)))
        expected = np.where(rows[..., None] >= 0, expected, frame)
        np.testing.assert_array_equal(Painter(result, alpha=0.3, labels=False).draw(image, 0, size), expected)


def plain_rows(result, masks):
    """The row of the best of the tracks at each pixel, the first of equals; -1 for none."""
    rows = np.full(masks.shape[1:], -1)
    for row in result.scores.argsort(descending=True, stable=True).tolist():
        rows[(rows < 0) & masks[row]] = row
    return rows


def test_a_label_is_written_once_for_all_frames(monkeypatch):
    frames, masks = crossing(num_frames=6)
    loaded, measured = [], []
    load, write = painter.load_font.__wrapped__, painter._draw_label
    monkeypatch.setattr(painter, "load_font", cache(lambda size: loaded.append(size) or load(size)))
    monkeypatch.setattr(painter, "_draw_label", lambda *args: measured.append(args[0]) or write(*args))
    drawing = Painter(instances(masks))
    for number, frame in enumerate(frames):
        drawing.draw(frame, number)
    assert loaded == [11]
    assert sorted(set(measured)) == sorted(measured) == ["#0 person 0.90", "#1 dog 0.50"]

"""The distributions of the random transforms."""

from collections import Counter

import numpy as np
import pytest

from vita_hf.data.clips.augmentation import draw_transforms
from vita_hf.data.clips.settings import ClipSettings
from vita_hf.data.clips.transforms import Crop, HorizontalFlip, Pad, Resize, Rotate


def draws(size, settings, number, **kwargs):
    generator = np.random.default_rng(0)
    return [draw_transforms(size, settings, generator, **kwargs) for _ in range(number)]


def find(chain, kind):
    return [transform for transform in chain if isinstance(transform, kind)]


# --- transforms of videos


def test_short_edges_are_uniform_and_the_long_edge_is_limited():
    settings = ClipSettings(crop_probability=0, flip_probability=0)
    chains = draws((480, 854), settings, 2000)
    assert all(len(set(clip)) == 1 and len(clip) == 5 and len(clip[0]) == 1 for clip in chains)
    counts = Counter(clip[0][0].new_size for clip in chains)
    # 448, 480 and 512 would be longer than 768: all become 432 × 768 (480 · 768/854 = 431.66)
    assert set(counts) == {(288, 512), (320, 569), (352, 626), (384, 683), (416, 740), (432, 768)}
    assert all(abs(counts[size] / 2000 - 1 / 8) < 0.03 for size in counts if size[1] < 768)
    assert abs(counts[432, 768] / 2000 - 3 / 8) < 0.04


def test_crop_and_flip_happen_with_their_probability_for_the_whole_clip():
    chains = draws((480, 640), ClipSettings(crop_probability=0.3, flip_probability=0.6), 2000)
    for kind, probability in ((Crop, 0.3), (HorizontalFlip, 0.6)):
        has = [{len(find(chain, kind)) for chain in clip} for clip in chains]
        assert all(number in ({0}, {1}) for number in has)
        assert abs(np.mean([number == {1} for number in has]) - probability) < 0.04
    assert not any(find(chain, Rotate) for clip in chains for chain in clip)


def test_order_of_the_transforms():
    settings = ClipSettings(crop_probability=1, flip_probability=1)
    kinds = [type(transform) for transform in draws((480, 640), settings, 1, is_image=True)[0][0]]
    assert kinds == [Resize, Crop, Resize, HorizontalFlip, Rotate]


def test_crop_sizes_and_corners_stay_inside_and_reach_all_values():
    settings = ClipSettings(crop_probability=1, crop_resize_short_edges=[500], crop_size=(384, 600), num_frames=3)
    sides, corners = [], []
    for clip in draws((500, 640), settings, 3000):
        crops = [find(chain, Crop)[0] for chain in clip]
        (height, width), *others = [crop.new_size for crop in crops]
        assert all(other == (height, width) for other in others)
        assert 384 <= height <= 500 and 384 <= width <= 600
        assert all(0 <= c.top <= 500 - height and 0 <= c.left <= 640 - width for c in crops)
        sides.append((height, width))
        corners += [(c.top / max(1, 500 - height), c.left / max(1, 640 - width)) for c in crops]
    sides = np.array(sides)
    assert sides.min(0).tolist() == [384, 384] and sides.max(0).tolist() == [500, 600]
    assert np.abs(sides.mean(0) - (442, 492)).max() < 5
    # c0 uniform and c1 uniform from there to the end: (1/2 + 3/4) / 2 of the room on average
    assert np.abs(np.mean(corners, 0) - 0.625).max() < 0.02


def test_crop_of_a_frame_smaller_than_the_window_is_the_whole_frame():
    settings = ClipSettings(crop_probability=1, crop_resize_short_edges=[100])
    crops = {find(chain, Crop)[0] for clip in draws((100, 150), settings, 20) for chain in clip}
    assert crops == {Crop(0, 0, (100, 150))}


def test_the_window_drifts_along_the_main_diagonal():
    settings = ClipSettings(crop_probability=1, crop_resize_short_edges=[600], crop_size=(200, 200))
    senses = Counter()
    for clip in draws((600, 800), settings, 1000):
        crops = [find(chain, Crop)[0] for chain in clip]
        steps = np.diff([(c.top, c.left) for c in crops], axis=0)
        senses["down and right" if (steps >= 0).all() else "up and left" if (steps <= 0).all() else "other"] += 1
    assert senses["other"] == 0 and abs(senses["up and left"] - 500) < 60


def test_drifting_crop_moves_all_along_one_line():
    # corner_t = c0 x_t + c1 (1 − x_t): the same share of the way on both axes, up to rounding
    settings = ClipSettings(crop_probability=1, crop_resize_short_edges=[600], crop_size=(100, 100), num_frames=6)
    for clip in draws((600, 600), settings, 200):
        corners = np.array([(c.top, c.left) for chain in clip for c in find(chain, Crop)], float)
        first, last = corners[0], corners[-1]
        if np.abs(last - first).min() > 50:
            share = (corners - first) / (last - first)
            assert np.abs(share[:, 0] - share[:, 1]).max() < 0.05


# --- pseudo clips and the COCO stage


def test_images_are_rotated_steadily_about_one_center():
    clips = draws((400, 600), ClipSettings(crop_probability=0, short_edges=[400]), 1000, is_image=True)
    signs, angles, centers = Counter(), [], []
    for clip in clips:
        rotations = [find(chain, Rotate)[0] for chain in clip]
        assert len({rotation.center for rotation in rotations}) == 1
        steps = np.diff([rotation.degrees for rotation in rotations])
        assert (steps > 0).all() or (steps < 0).all()
        signs[bool(steps[0] > 0)] += 1
        angles += [rotation.degrees for rotation in rotations]
        centers.append(rotations[0].center)
    assert abs(signs[True] - 500) < 60
    angles = np.array(angles)
    assert -15 <= angles.min() < -14.9 and 14.9 < angles.max() <= 15 and abs(angles.std() - 15 / 3**0.5) < 0.2
    centers = np.array(centers) / (600, 400)
    assert (centers.min(0) >= 0.4).all() and (centers.max(0) <= 0.6).all()
    assert np.abs(centers.std(0) - 0.2 / 12**0.5).max() < 0.003 and abs(np.corrcoef(centers.T)[0, 1]) < 0.1


@pytest.mark.parametrize("size", [(480, 640), (900, 300), (1, 400)])
def test_large_scale_jitter_follows_its_formula(size):
    settings = ClipSettings(num_frames=1, flip_probability=0, large_scale_jitter={"size": 256}, pad_value=99)
    scales, shares = [], []
    for ((resize, crop, pad),) in draws(size, settings, 2000):
        assert (type(resize), type(crop), type(pad)) == (Resize, Crop, Pad)
        assert pad.new_size == (256, 256) and pad.value == 99
        scale = max(resize.new_size) / max(size)
        scales.append(scale * max(size) / 256)
        assert all(abs(new - max(1, old * scale)) <= 1 + old / max(size) for new, old in zip(resize.new_size, size))
        assert crop.new_size == tuple(min(side, 256) for side in resize.new_size)
        room = [side - window for side, window in zip(resize.new_size, crop.new_size)]
        assert 0 <= crop.top <= room[0] and 0 <= crop.left <= room[1]
        if min(room) > 50:  # one random number for both axes
            assert abs(crop.top / room[0] - crop.left / room[1]) < 0.02
        if max(room) > 50:
            shares.append((crop.top + crop.left) / sum(room))
    assert min(scales) >= 0.09 and 1.95 < max(scales) <= 2.01 and abs(np.mean(scales) - 1.05) < 0.05
    assert abs(np.mean(shares) - 0.5) < 0.05 and min(shares) < 0.05 and max(shares) > 0.95

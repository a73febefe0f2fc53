"""From rows to clips: which frames, which random transforms, which targets."""

from collections import Counter

import numpy as np
import pytest
import torch
from datasets import Dataset

from helpers.clip_rows import instance, make_row, noise_row, painted, rle
from vita_hf.data.clips import sampling as clips_module
from vita_hf.data.clips.augmentation import draw_transforms
from vita_hf.data.clips.sampling import draw_clip, sample_frames
from vita_hf.data.clips.settings import ClipSettings, LargeScaleJitter
from vita_hf.data.clips.transforms import Crop, HorizontalFlip, Pad, Resize, Rotate
from vita_hf.data.frames import BrokenSampleError, decode_frame
from vita_hf.data.schema import VIDEO_FEATURES

PLAIN = ClipSettings(num_frames=3, frame_range=2, crop_probability=0, flip_probability=0, short_edges=[40])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def draws(size, settings, number, **kwargs):
    generator = rng()
    return [draw_transforms(size, settings, generator, **kwargs) for _ in range(number)]


def find(chain, kind):
    return [transform for transform in chain if isinstance(transform, kind)]


# --- frames


def test_frames_lie_within_the_range_of_a_reference_that_is_drawn_once():
    generator = rng()
    for _ in range(500):
        frames = sample_frames(30, 4, 5, generator)
        assert frames == sorted(frames) and 0 <= frames[0] and frames[-1] < 30
        counts = Counter(frames)
        assert any(counts[r] == 1 and all(abs(f - r) <= 5 for f in frames) for r in counts)


@pytest.mark.parametrize("length, frame_range", [(6, 2), (4, 20)])
def test_pairs_of_frames_have_the_probabilities_of_the_rule(length, frame_range):
    # P(a, b) = P(reference a) P(b | a) + P(reference b) P(a | b), neighbours uniform without the reference
    expected = np.zeros((length, length))
    for reference in range(length):
        others = [t for t in range(length) if t != reference and abs(t - reference) <= frame_range]
        for other in others:
            expected[min(reference, other), max(reference, other)] += 1 / length / len(others)
    generator, number = rng(1), 20_000
    counts = np.zeros_like(expected)
    for _ in range(number):
        first, second = sample_frames(length, 2, frame_range, generator)
        counts[first, second] += 1
    assert np.array_equal(counts > 0, expected > 0)
    deviation = (counts / number - expected) / np.sqrt(expected.clip(1e-9) / number)
    assert np.abs(deviation).max() < 4


def test_frames_other_than_the_reference_are_drawn_with_replacement():
    generator = rng()
    assert all(
        Counter(sample_frames(2, 4, 20, generator)) in (Counter([0, 1, 1, 1]), Counter([0, 0, 0, 1])) for _ in range(50)
    )


def test_a_single_frame_is_repeated_and_a_single_frame_can_be_drawn():
    assert sample_frames(1, 5, 20, rng()) == [0] * 5
    generator = rng()
    assert {tuple(sample_frames(3, 1, 1, generator)) for _ in range(50)} == {(0,), (1,), (2,)}


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


def test_large_scale_jitter_pads_pixels_with_the_value_and_masks_with_nothing():
    row = make_row([np.full((40, 60, 3), 10, np.uint8)], [instance([rle(np.ones((40, 60), bool))])])
    jitter = LargeScaleJitter(size=128, min_scale=0.5, max_scale=0.5)
    clip = draw_clip(row, ClipSettings(num_frames=1, large_scale_jitter=jitter), rng())
    # 60 → 64, 40 → 42.67
    assert clip["pixel_values"].shape == (1, 3, 128, 128) and clip["mask_labels"].shape == (1, 1, 128, 128)
    inside = torch.zeros(128, 128, dtype=torch.bool)
    inside[:43, :64] = True
    assert torch.equal(clip["mask_labels"][0, 0], inside)
    assert torch.equal(clip["pixel_values"], torch.where(inside, 10, 128).to(torch.uint8).expand(1, 3, 128, 128))


# --- clips


def test_without_augmentation_a_clip_is_the_frames_and_masks_of_the_row():
    row = noise_row(6)
    clip = draw_clip(row, PLAIN, rng())
    frames = clip["frame_indices"]
    assert clip["video_id"] == 7 and len(frames) == 3
    assert clip["pixel_values"].dtype == torch.uint8 and clip["mask_labels"].dtype == torch.bool
    for t, frame in enumerate(frames):
        assert np.array_equal(clip["pixel_values"][t].permute(1, 2, 0), decode_frame(row["frames"][frame], row))
        expected = torch.zeros(40, 56, dtype=torch.bool)
        expected[10:25, 5 + frame : 25 + frame] = True
        assert torch.equal(clip["mask_labels"][0, t], expected)
        assert clip["mask_labels"][1:, t].any() == (frame % 2 == 0)
    assert clip["class_labels"].tolist() == [3, 5] and clip["class_labels"].dtype == torch.int64


def test_every_augmentation_moves_masks_with_their_pixels():
    yy, xx = np.mgrid[:120, :160]
    masks = [(xx - 60 - 8 * t) ** 2 + (yy - 60 - 4 * t) ** 2 < 45**2 for t in range(4)]
    video = make_row([painted(mask) for mask in masks], [instance([rle(mask) for mask in masks])])
    image = make_row([painted(masks[0])], [instance([rle(masks[0])])])
    settings = ClipSettings(
        num_frames=4,
        frame_range=3,
        crop_resize_short_edges=[140, 160],
        crop_max_long_edge=300,
        crop_size=(100, 130),
        short_edges=[90, 110],
        max_long_edge=140,
    )
    jitter = ClipSettings(num_frames=2, frame_range=3, large_scale_jitter={"size": 128, "min_scale": 0.5}, pad_value=0)
    for row, chosen in ((video, settings), (image, settings), (image, jitter)):
        for seed in range(20):
            clip = draw_clip(row, chosen, rng(seed))
            masks_of_clip, pixels = clip["mask_labels"][0], clip["pixel_values"][:, 0]
            # pixels at the border are grey, or differ by the rounding of nearest neighbours
            differ = masks_of_clip != (pixels > 127)
            assert masks_of_clip.any() and differ.float().mean() < 0.02
            assert not differ[(pixels == 0) | (pixels == 255)].float().sum() > 0.002 * differ.numel()


def test_instances_outside_the_clip_and_crowds_are_left_out():
    blank = np.zeros((40, 56, 3), np.uint8)
    left = np.zeros((40, 56), bool)
    left[:, :3] = True
    entries = [
        instance([rle(left), None, None], label=0, id=1),  # only in frame 0
        instance([None, None, None], label=1, id=2),
        instance([rle(np.zeros((40, 56), bool))] * 3, label=2, id=3),  # annotated, but empty
        instance([rle(~left)] * 3, label=3, id=4, iscrowd=True),
    ]
    row = make_row([blank] * 3, entries)
    settings = ClipSettings(num_frames=2, frame_range=1, crop_probability=0, flip_probability=0, short_edges=[40])
    for seed in range(30):
        clip = draw_clip(row, settings, rng(seed))
        number = int(0 in clip["frame_indices"])
        assert clip["class_labels"].tolist() == [0] * number
        assert clip["mask_labels"].shape == (number, 2, 40, 56)


def test_an_image_becomes_a_clip_that_moves():
    row = noise_row(1)
    clip = draw_clip(row, ClipSettings(num_frames=4, crop_probability=0, short_edges=[40]), rng())
    assert clip["frame_indices"] == [0] * 4 and clip["pixel_values"].shape == (4, 3, 40, 56)
    assert len({frame.numpy().tobytes() for frame in clip["pixel_values"]}) == 4
    still = draw_clip(
        row, ClipSettings(num_frames=4, crop_probability=0, short_edges=[40], max_rotation_degrees=0), rng()
    )
    assert len({frame.numpy().tobytes() for frame in still["pixel_values"]}) == 1


def test_only_drawn_frames_are_decoded_and_each_once(monkeypatch):
    row, decoded = noise_row(30), []
    for t, frame in enumerate(row["frames"]):
        frame["number"] = t

    def counted(frame, row):
        decoded.append(frame["number"])
        return decode_frame(frame, row)

    monkeypatch.setattr(clips_module, "decode_frame", counted)
    for seed in range(10):
        decoded.clear()
        settings = ClipSettings(
            num_frames=6,
            frame_range=2,
            crop_probability=1.0,
            crop_resize_short_edges=[50],
            crop_size=(30, 50),
            short_edges=[40],
        )
        frames = draw_clip(row, settings, rng(seed))["frame_indices"]
        assert sorted(decoded) == sorted(set(frames))


def test_only_drawn_masks_are_decoded():
    row = noise_row(30)
    clip = draw_clip(row, PLAIN, rng())
    for t, segmentation in enumerate(row["instances"][0]["segmentations"]):
        if t not in clip["frame_indices"]:
            segmentation["rle"] = "corrupt"
    assert torch.equal(draw_clip(row, PLAIN, rng())["mask_labels"], clip["mask_labels"])
    row["instances"][0]["segmentations"][clip["frame_indices"][1]]["rle"] = "corrupt"
    with pytest.raises(BrokenSampleError, match=f"video 7, annotation 1, frame {clip['frame_indices'][1]}: "):
        draw_clip(row, PLAIN, rng())


def test_clips_depend_on_the_generator_alone():
    row = noise_row(8)
    settings = ClipSettings(
        num_frames=3, frame_range=5, short_edges=[30, 40], crop_resize_short_edges=[50], crop_size=(30, 50)
    )
    first, again, other = (draw_clip(row, settings, rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert torch.equal(first["mask_labels"], again["mask_labels"])
    assert first["frame_indices"] != other["frame_indices"]


def test_rows_out_of_an_arrow_data_set_give_the_same_clips():
    rows = [noise_row(5, video_id=1), noise_row(1, video_id=2)]
    dataset = Dataset.from_list(rows, features=VIDEO_FEATURES)
    for row, stored in zip(rows, dataset):
        expected, clip = (
            draw_clip(r, ClipSettings(num_frames=3, frame_range=4, short_edges=[40]), rng()) for r in (row, stored)
        )
        assert torch.equal(clip["pixel_values"], expected["pixel_values"])
        assert torch.equal(clip["mask_labels"], expected["mask_labels"]) and len(clip["mask_labels"]) == 2


def test_a_row_without_frames_is_broken():
    with pytest.raises(BrokenSampleError, match="video 9, frames: expected at least one"):
        draw_clip({"video_id": 9, "height": 4, "width": 4, "frames": [], "instances": []}, PLAIN, rng())


# --- settings


def test_defaults_are_the_released_ones():
    settings = ClipSettings()
    assert (settings.num_frames, settings.frame_range) == (5, 20)
    assert settings.short_edges == tuple(range(288, 513, 32)) and settings.max_long_edge == 768
    assert settings.crop_resize_short_edges == (400, 500, 600) and settings.crop_max_long_edge == 1333
    assert settings.crop_size == (384, 600) and settings.crop_probability == settings.flip_probability == 0.5
    assert settings.max_rotation_degrees == 15 and settings.rotation_center == (0.4, 0.6)
    assert settings.pad_value == 128 and LargeScaleJitter() == LargeScaleJitter(size=1024, min_scale=0.1, max_scale=2.0)

"""From rows to clips: frames and targets."""

from collections import Counter

import numpy as np
import pytest
import torch
from datasets import Dataset

from helpers.clip_rows import instance, make_row, noise_row, painted, rle
from vita_hf.data.clips import sampling as clips_module
from vita_hf.data.clips.sampling import draw_clip, sample_frames
from vita_hf.data.clips.settings import ClipSettings, LargeScaleJitter
from vita_hf.data.frames import BrokenSampleError, decode_frame
from vita_hf.data.schema import VIDEO_FEATURES

PLAIN = ClipSettings(num_frames=3, frame_range=2, crop_probability=0, flip_probability=0, short_edges=[40])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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
    # P(a, b) = P(reference a) P(b | a) + P(reference b) P(a | b), neighbors uniform without the reference
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
            # pixels at the border are gray, or differ by the rounding of nearest neighbors
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


def test_rows_with_masks_of_too_few_frames_are_broken():
    row = noise_row(length=4)
    row["instances"][0]["segmentations"].pop()
    with pytest.raises(
        BrokenSampleError, match="segmentations: expected one of each instance for each of the 4 frames"
    ):
        draw_clip(row, PLAIN, rng())


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


# --- settings


def test_defaults_are_the_released_ones():
    settings = ClipSettings()
    assert (settings.num_frames, settings.frame_range) == (5, 20)
    assert settings.short_edges == tuple(range(288, 513, 32)) and settings.max_long_edge == 768
    assert settings.crop_resize_short_edges == (400, 500, 600) and settings.crop_max_long_edge == 1333
    assert settings.crop_size == (384, 600) and settings.crop_probability == settings.flip_probability == 0.5
    assert settings.max_rotation_degrees == 15 and settings.rotation_center == (0.4, 0.6)
    assert settings.pad_value == 128 and LargeScaleJitter() == LargeScaleJitter(size=1024, min_scale=0.1, max_scale=2.0)

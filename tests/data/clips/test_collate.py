"""Batches of clips."""

import pytest
import torch

from vita_hf import VitaVideoProcessor
from vita_hf.data.clips.collate import collate_clips

PLAIN = {"image_mean": [0] * 3, "image_std": [1] * 3, "rescale_factor": 1 / 255, "size_divisor": 32}


def plain_clip(height: int, width: int, number: int, value: int = 51, length: int = 2) -> dict:
    return {
        "pixel_values": torch.full((length, 3, height, width), value, dtype=torch.uint8),
        "mask_labels": torch.ones(number, length, height, width, dtype=torch.bool),
        "class_labels": torch.arange(number),
        "video_id": height,
        "frame_indices": [0] * length,
    }


def test_collate_normalizes_and_then_pads_with_zeros():
    clips = [plain_clip(33, 40, 2), plain_clip(20, 65, 0, value=255) | {"skipped": ["video 3: gone"]}]
    batch = collate_clips(clips, **PLAIN | {"image_mean": [0.5, 0.2, 0.0], "image_std": [0.5, 0.1, 2.0]})
    pixels = batch["pixel_values_videos"]
    assert pixels.shape == (2, 2, 3, 64, 96) and pixels.dtype == torch.float32
    for pixel, (h, w), values in (
        (pixels[0], (33, 40), [-0.6, 0.0, 0.1]),  # 51 / 255 = 0.2
        (pixels[1], (20, 65), [1.0, 8.0, 0.5]),
    ):
        expected = torch.zeros(2, 3, 64, 96)
        expected[:, :, :h, :w] = torch.tensor(values).view(3, 1, 1)
        torch.testing.assert_close(pixel, expected, atol=2e-6, rtol=0)
        assert not pixel[..., h:, :].any() and not pixel[..., w:].any()
    assert batch["instances"] == [2, 0]
    assert batch["mask_labels"].shape == (2, 2, 64, 96) and batch["mask_labels"].dtype == torch.bool
    assert batch["mask_labels"].sum() == 2 * 2 * 33 * 40 and batch["mask_labels"][..., :33, :40].all()
    assert batch["class_labels"].tolist() == [0, 1]
    assert batch["instance_presence"].tolist() == [[True, True]] * 2
    assert batch["video_ids"] == [33, 20] and batch["skipped"] == ["video 3: gone"]


def test_collate_equals_the_processor():
    processor = VitaVideoProcessor(do_resize=False)
    video = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8)
    expected = processor(video, return_tensors="pt").pixel_values_videos
    clip = plain_clip(50, 70, 1) | {"pixel_values": video}
    normalization = {"image_mean": processor.image_mean, "image_std": processor.image_std}
    batch = collate_clips([clip], **PLAIN | normalization)
    assert torch.equal(batch["pixel_values_videos"], expected)


def test_collate_tells_where_instances_are_present():
    clips = [plain_clip(20, 30, 2), plain_clip(20, 30, 0), plain_clip(33, 30, 1)]
    clips[0]["mask_labels"][1, 0] = False
    clips[2]["mask_labels"][0, 1] = False
    clips[2]["mask_labels"][0, 1, 32, 29] = True  # the last pixel
    presence = collate_clips(clips, **PLAIN)["instance_presence"]
    assert presence.dtype == torch.bool and presence.device.type == "cpu"
    assert presence.tolist() == [[True, True], [False, True], [True, True]]
    empty = collate_clips(clips[1:2], **PLAIN)["instance_presence"]
    assert empty.shape == (0, 2)


def test_collate_pads_to_the_divisor():
    batch = collate_clips([plain_clip(64, 33, 1)], **PLAIN | {"size_divisor": 16})
    assert batch["pixel_values_videos"].shape[-2:] == (64, 48)


def test_collate_refuses_clips_of_different_lengths():
    with pytest.raises(ValueError, match=r"all with the same number of frames, got \[2, 3\]"):
        collate_clips([plain_clip(4, 4, 1), plain_clip(4, 4, 1, length=3)], **PLAIN)

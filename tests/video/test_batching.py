import numpy as np
import pytest
import torch

from vita_hf.video.batching import normalize_and_pad, padded_size

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_padded_size():
    assert padded_size([(360, 640)], 32) == (384, 640)
    assert padded_size([(33, 10), (5, 70)], 16) == (48, 80)
    assert padded_size([(33, 10), (5, 70)], 1) == (33, 70)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_videos_of_different_sizes_and_lengths(dtype):
    videos = [torch.randint(0, 256, shape).to(dtype) for shape in [(2, 3, 20, 30), (4, 3, 25, 10)]]
    settings = {"image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 255, "size_divisor": 16}
    batch = normalize_and_pad(videos, **settings)
    assert batch.shape == (2, 4, 3, 32, 32) and batch.dtype == torch.float32
    expected = np.zeros(batch.shape)
    for video, padded in zip(videos, expected):
        rescaled = video.double().numpy() / 255
        normalized = (rescaled - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
        padded[: len(video), :, : video.shape[2], : video.shape[3]] = normalized
    np.testing.assert_allclose(batch.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "do_rescale, do_normalize, expected", [(False, False, 51.0), (True, False, 0.2), (False, True, 202.0)]
)
def test_steps_that_are_left_out(do_rescale, do_normalize, expected):
    video = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    settings = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 255, "size_divisor": 1}
    batch = normalize_and_pad([video], **settings, do_rescale=do_rescale, do_normalize=do_normalize)
    torch.testing.assert_close(batch, torch.full((1, 1, 3, 2, 2), expected))

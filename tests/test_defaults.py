"""`torch.set_default_device` and `torch.set_default_dtype` change no result."""

import numpy as np
import pytest
import torch

from helpers.models import labels, tiny_model
from helpers.videos import make_frames
from vita_hf import VideoInstances, VitaVideoProcessor
from vita_hf.data.clips.collate import collate_clips
from vita_hf.inference.loading import load_model
from vita_hf.inference.offline import segment_video
from vita_hf.inference.options import SegmentationOptions


def set_default(default):
    torch.set_default_dtype(default if isinstance(default, torch.dtype) else torch.float32)
    torch.set_default_device(default if isinstance(default, str) else None)


@pytest.fixture(params=[torch.float64, torch.bfloat16, "meta"], ids=str)
def with_default(request):
    """Run a function with and without another default; "meta" stands in for a GPU."""

    def run(function):
        results = []
        for default in (None, request.param):
            torch.manual_seed(0)
            set_default(default)
            try:
                results.append(flatten(function()))
            finally:
                set_default(None)
        return results

    yield run
    set_default(None)


def flatten(result):
    """The tensors and other values of nested results, in order."""
    if isinstance(result, VideoInstances):
        dense = result.to_dense()
        result = [vars(result), dense.masks, result.boxes, result.areas, dense.areas, result.summary()]
    if isinstance(result, dict):
        result = list(result.values())
    return [part for item in result for part in flatten(item)] if isinstance(result, list | tuple) else [result]


def assert_same(results):
    expected, got = results
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        if isinstance(other, torch.Tensor):
            assert (one.device, one.dtype) == (other.device, other.dtype)
            assert torch.equal(one.nan_to_num(), other.nan_to_num())
        else:
            assert one == other


def test_processor(with_default):
    frames = make_frames()
    for video in (frames, frames.astype(np.float64)):
        assert_same(with_default(lambda video=video: dict(VitaVideoProcessor()(video, return_tensors="pt"))))


def test_outputs_and_post_processing(with_default):
    model, processor, video = tiny_model().eval(), VitaVideoProcessor(), torch.randn(1, 3, 3, 64, 96)
    mask = torch.tensor([[True, True, False]])

    @torch.no_grad()
    def outputs():
        found = model(video, frame_mask=mask)
        result = [found.class_queries_logits, found.masks_queries_logits]
        for output_format in ("masks", "rle"):
            options = {"frame_mask": mask, "output_format": output_format, "target_sizes": [(50, 70)]}
            result += processor.post_process_video_instance_segmentation(found, **options)
        return result

    assert_same(with_default(outputs))


def test_losses_and_gradients(with_default):
    model, video, given = tiny_model().train(), torch.randn(1, 2, 3, 64, 64), labels(1, 2, 64, 64)

    def losses():
        model.zero_grad()
        output = model(video, **given)
        output.loss.backward()
        return [output.loss_dict, [p.grad for p in model.parameters() if p.grad is not None]]

    assert_same(with_default(losses))


def test_collate(with_default):
    clip = {
        "video_id": 7,
        "class_labels": torch.tensor([3]),
        "mask_labels": torch.ones(1, 2, 30, 50, dtype=torch.bool),
        "pixel_values": torch.randint(256, (2, 3, 30, 50), dtype=torch.uint8),
    }
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "size_divisor": 32}
    assert_same(with_default(lambda: collate_clips([clip, clip], **settings)))


@pytest.mark.parametrize("mask_features", ["device", "host", "disk", "recompute"])
def test_segmenting(with_default, tiny_model, mask_features):
    loaded = load_model(tiny_model)
    options = SegmentationOptions(threshold=0.0, mask_features=mask_features, classes=["cat", "dog", "hen"])
    assert_same(with_default(lambda: segment_video(*loaded, make_frames(), options)))


def test_instances(with_default):
    one = {"scores": torch.ones(2), "labels": torch.arange(2), "query_indices": torch.arange(2)}
    masks = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    masks[1, 1:, 1:3, :2] = True

    def use():
        tracks = VideoInstances(**one, masks=masks, size=(4, 4), num_frames=3, id2label={0: "cat", 1: "dog"})
        read = VideoInstances.from_json(tracks.to_json())
        chosen = [tracks[1], tracks[[0]], tracks[[]], tracks[:1], *read, read.filter(0.5, "dog"), read[[]].to_rle()]
        return [*chosen, tracks.label_map(1), read.masks_at(-1), read[[]].masks_at(0)]

    assert_same(with_default(use))

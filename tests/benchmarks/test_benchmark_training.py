"""The baseline of benchmarks/benchmark_training.py computes what the model computes."""

import pytest
import torch

import benchmark_training
from helpers.models import gradients, labels, tiny_model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("deformable", ["transformers", "pytorch"])
def test_baseline_has_the_same_losses_and_gradients(attention, deformable):
    model = tiny_model().train()
    baseline = benchmark_training.as_baseline(model)
    baseline.set_attn_implementation(attention)
    video, targets = torch.randn(2, 3, 3, 64, 96), labels(2, 3, 64, 96)
    loss, expected = gradients(model, video, targets)
    with benchmark_training.installed(baseline, deformable):
        again, actual = gradients(baseline, video, targets)
    torch.testing.assert_close(again, loss)
    assert actual.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values()).item()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-5 * largest, msg=name)
    masks = baseline.model.transformer_module.decoder.masks
    assert [tuple(m.shape) for m in masks] == [(6, 12, 16, 24)] * 3  # of every frame and query, before each layer
    assert all(m.requires_grad for m in masks)


def test_unequal_losses_are_an_error():
    baseline, ours = (benchmark_training.Variant("whole step", model, "cpp") for model in ("baseline", "vita-hf"))
    losses = {baseline: {"loss_ce": 1.0}, ours: {"loss_ce": 1.0002}}
    with pytest.raises(AssertionError, match=r"loss_ce: 1\.0002 with vita-hf cpp, 1\.0 with baseline cpp"):
        benchmark_training.expect_equal(losses)

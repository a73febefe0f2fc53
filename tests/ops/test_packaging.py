"""The Hub-kernel layout, loaded by `kernels` into one of transformers' other models."""

import pytest
import torch
from transformers import DeformableDetrConfig, DeformableDetrModel, ResNetConfig
from transformers.models.deformable_detr import modeling_deformable_detr

from vita_hf.ops.build import BuildError
from vita_hf.ops.packaging import package

kernels = pytest.importorskip("kernels", reason="the package kernels is not installed")
LAYER = "MultiScaleDeformableAttention"


def test_deformable_detr_with_our_layer(tmp_path, monkeypatch):
    try:
        folder = package(tmp_path / "deformable-attention")
    except BuildError as error:
        pytest.skip(str(error))
    config = DeformableDetrConfig(
        backbone_config=ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 16, 16, 16],
            depths=[1, 1, 1, 1],
            out_features=["stage2", "stage3", "stage4"],
        ),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=6,
    )
    model = DeformableDetrModel(config).eval()
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(pixels)

    # transformers leaves the class unmarked where its own version check of `kernels` fails.
    cls = modeling_deformable_detr.MultiScaleDeformableAttention
    for name in ("kernel_layer_name", "kernel_condition"):
        monkeypatch.setattr(cls, name, None, raising=False)
    kernels.replace_kernel_forward_from_hub(cls, LAYER)
    repository = kernels.LocalLayerRepository(folder, layer_name=LAYER)
    with kernels.use_kernel_mapping({LAYER: {"cpu": repository}}, inherit_mapping=False):
        model = kernels.kernelize(model, mode=kernels.Mode.INFERENCE, device="cpu", use_fallback=False)

    operator = "deformable_attention_cpp::deformable_attention"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
        actual = model(pixels)
    calls = [event for event in profile.events() if event.name == operator]
    assert len(calls) == 4  # two encoder and two decoder layers
    torch.testing.assert_close(actual.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        actual.encoder_last_hidden_state, expected.encoder_last_hidden_state, rtol=1e-4, atol=1e-5
    )

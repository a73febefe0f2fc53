import copy
import json
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    TimmBackboneConfig,
)

from helpers.models import BACKBONES, DETECTOR, gradients, labels, perturbed, tiny_config, tiny_model
from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation, VitaModel, modeling_associator, modeling_layers


@pytest.fixture(scope="module")
def model():
    return tiny_model()


# -- Mask2Former checkpoints as detectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["swin", "timm resnet"])
def test_mask2former_checkpoint_becomes_the_detector(backbone, tmp_path):
    theirs = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=BACKBONES[backbone](), **DETECTOR))
    with torch.no_grad():  # moves masks away from their threshold
        theirs.model.transformer_module.queries_features.weight.normal_()
    theirs = perturbed(theirs)
    theirs.save_pretrained(tmp_path)
    ours, report = VitaForVideoInstanceSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    video_part = (
        "model.object_encoder.",
        "model.object_decoder.",
        "model.video_mask_projection.",
        "video_class_predictor.",
        "video_mask_embedder.",
        "frame_similarity_embedder.",
        "video_similarity_embedder.",
    )
    expected = {name for name in ours.state_dict() if name.startswith(video_part)}
    assert set(report["missing_keys"]) == expected
    assert not report["unexpected_keys"] and not report["mismatched_keys"] and not report["error_msgs"]
    assert isinstance(ours.config, VitaConfig) and ours.config.model_type == "vita"

    frames = torch.randn(1, 2, 3, 64, 96)
    with torch.no_grad():
        a = theirs(pixel_values=frames[0], output_auxiliary_logits=True)
        b = ours.eval()(frames, output_auxiliary_logits=True).auxiliary_logits
    for mine, theirs_ in zip(b, [*a.auxiliary_logits, a]):
        for key in ("class_queries_logits", "masks_queries_logits"):
            torch.testing.assert_close(mine[key][0], theirs_[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_backbone_trains_every_parameter_it_asks_for(backbone, tmp_path):
    model = tiny_model(backbone).train()
    frames = torch.randn(1, 2, 3, 64, 64)
    model(frames, **labels(1, 2, 64, 64)).loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    model.save_pretrained(tmp_path)
    again = VitaForVideoInstanceSegmentation.from_pretrained(tmp_path)
    asked = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in again.named_parameters() if p.requires_grad} == asked
    with torch.no_grad():
        a, b = model.eval()(frames), again.eval()(frames)
    assert torch.equal(a.masks_queries_logits, b.masks_queries_logits)


def test_unfit_backbones_are_refused():
    with pytest.raises(ValueError, match=r"backbone_config: expected a backbone with four output maps.*2"):
        VitaModel(VitaConfig(backbone_config=TimmBackboneConfig(backbone="resnet18", out_indices=[3, 4])))
    strides = TimmBackboneConfig(backbone="resnet18", out_indices=[0, 1, 2, 3])
    model = VitaModel(VitaConfig(backbone_config=strides, **DETECTOR))
    with pytest.raises(ValueError, match="backbone_config: expected maps of strides 4, 8, 16, 32"):
        model(torch.randn(1, 1, 3, 64, 64))


# -- Batches, padding, chunks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, 2, 3, 6])
@torch.no_grad()
def test_padded_batch_equals_videos_one_by_one(window):
    model = tiny_model(object_encoder_window_size=window)
    lengths = (3, 7, 1)
    videos = torch.randn(len(lengths), max(lengths), 3, 64, 96)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    together = model(videos, frame_mask=mask)
    # the content of padding frames does not matter
    other = model(torch.where(mask[..., None, None, None], videos, 7.0), frame_mask=mask)
    torch.testing.assert_close(other.class_queries_logits, together.class_queries_logits, rtol=0, atol=1e-6)
    for index, length in enumerate(lengths):
        alone = model(videos[index : index + 1, :length])
        for key in ("class_queries_logits", "mask_embeddings"):
            torch.testing.assert_close(together[key][index], alone[key][0], rtol=1e-5, atol=1e-5)
        for key, axis in (("masks_queries_logits", 1), ("video_mask_features", 0)):
            ours = together[key][index].narrow(axis, 0, length)
            torch.testing.assert_close(ours, alone[key][0], rtol=1e-5, atol=1e-5)
        ours = together.frame_queries[:, index, :length]
        torch.testing.assert_close(ours, alone.frame_queries[:, 0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_chunks_do_not_change_the_result(model, monkeypatch):
    video = torch.randn(1, 7, 3, 64, 64)
    whole = model(video, output_hidden_states=True)
    monkeypatch.setattr(model.config, "detector_chunk_size", 3)
    monkeypatch.setattr(modeling_associator, "_WINDOW_CHUNK", 1)
    monkeypatch.setattr(modeling_layers, "_FEED_FORWARD_CHUNK", 5)
    parts = model(video, output_hidden_states=True)
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-5, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


@torch.no_grad()
def test_object_encoder_windows_by_definition():
    """Frames attend to exactly the frames of their window; odd layers shift the windows by half."""
    window, frames = 4, 11
    model = tiny_model(object_encoder_window_size=window, object_encoder_layers=2)
    encoder = model.model.object_encoder
    queries = torch.randn(1, frames, 5, 32)
    base = encoder(queries, None)[0]
    shift = (window + 1) // 2
    for touched in range(frames):
        changed = queries.clone()
        changed[:, touched] += 1
        moved = (encoder(changed, None)[0] - base).abs().amax((0, 2, 3)) > 1e-6
        reached = {t for t in range(frames) if t // window == touched // window}
        shifted = {(t + shift) // window for t in reached}
        assert {t for t in range(frames) if moved[t]} == {t for t in range(frames) if (t + shift) // window in shifted}


@torch.no_grad()
def test_inference_predicts_no_frame_masks_or_classes(model):
    calls = []
    decoder = model.model.transformer_module.decoder
    hooks = [
        model.class_predictor.register_forward_hook(lambda *_: calls.append("class")),
        decoder.mask_predictor.mask_embedder.register_forward_hook(lambda *_: calls.append("mask")),
        decoder.layernorm.register_forward_hook(lambda *_: calls.append("norm")),
    ]
    out = model(torch.randn(1, 2, 3, 64, 64))
    assert calls.count("class") == 0
    assert calls.count("mask") == len(decoder.layers)  # one for each attention mask, none after the last layer
    assert out.frame_queries.shape == (1, 1, 2, 12, 32)
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def test_attention_masks_equal_those_of_full_resolution_predictions(model):
    out = model(torch.randn(1, 2, 3, 64, 96), output_auxiliary_logits=True)
    features = model.model.detect(torch.randn(2, 3, 64, 96)).mask_features
    states = torch.randn(2, 12, 32)
    decoder = model.model.transformer_module.decoder
    for size in ((2, 3), (4, 6), (8, 12)):
        pooled = torch.nn.functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
        ours = decoder.attention_mask(states, pooled.flatten(2))[:, 0]
        full = torch.einsum("nqc,nchw->nqhw", decoder.mask_predictor.mask_embedder(states), features)
        logits = torch.nn.functional.interpolate(full, size=size, mode="bilinear", align_corners=False).flatten(2)
        seen = logits.sigmoid() >= 0.5
        seen |= ~seen.any(-1, keepdim=True)
        decided = (logits.abs() > 1e-4).all(-1, keepdim=True).expand_as(seen)
        assert decided.float().mean() > 0.5
        assert (ours == seen)[decided].all()
    assert len(out.auxiliary_logits) == 4


# -- Attention, precision, compilation ---------------------------------------------------------------------------------


def test_eager_equals_sdpa(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    models = {
        name: AutoModelForUniversalSegmentation.from_pretrained(tmp_path, attn_implementation=name).eval()
        for name in ("eager", "sdpa")
    }
    video = torch.randn(2, 3, 3, 64, 64)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    with torch.no_grad():
        a, b = (m(video, frame_mask=mask) for m in models.values())
    torch.testing.assert_close(a.class_queries_logits, b.class_queries_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(a.mask_embeddings, b.mask_embeddings, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_attentions_and_hidden_states(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = VitaForVideoInstanceSegmentation.from_pretrained(tmp_path, attn_implementation="eager").eval()
    mask = torch.tensor([[True, True, True], [True, False, False]])
    out = model(torch.randn(2, 3, 3, 64, 64), frame_mask=mask, output_attentions=True, output_hidden_states=True)
    assert [tuple(a.shape) for a in out.attentions] == [(2, 4, 10, 10)] * 3
    assert [tuple(a.shape) for a in out.cross_attentions] == [(2, 4, 10, 36)] * 3
    assert [tuple(a.shape) for a in out.transformer_decoder_attentions] == [(6, 4, 12, 12)] * 3
    for weights in (*out.attentions, *out.cross_attentions, *out.transformer_decoder_attentions):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert out.cross_attentions[0][1, :, :, 12:].abs().max() == 0  # no query attends to padding frames
    assert [tuple(h.shape) for h in out.hidden_states] == [(2, 10, 32)] * 4
    assert [tuple(h.shape) for h in out.object_encoder_hidden_states] == [(2, 3, 12, 32)] * 4
    assert [tuple(h.shape) for h in out.transformer_decoder_hidden_states] == [(6, 12, 32)] * 4
    assert [h.shape[-1] for h in out.encoder_hidden_states] == [16, 8, 4, 2]
    assert [h.shape[-1] for h in out.pixel_decoder_hidden_states] == [2, 4, 8]
    norm = model.model.object_decoder.layernorm
    base = model.model(torch.randn(2, 3, 3, 64, 64), output_hidden_states=True)
    torch.testing.assert_close(norm(base.hidden_states[-1]), base.last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("recorded", [{"output_hidden_states": [0, 2]}, {"output_attentions": True}], ids=str)
def test_what_chunks_of_frames_record_is_joined(recorded, model, monkeypatch):
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    video = torch.randn(1, 5, 3, 64, 64)
    whole = model(video, **recorded)
    monkeypatch.setattr(model.config, "detector_chunk_size", 2)
    chunked = model(video, **recorded)
    names = {name for name in whole if name.endswith(("hidden_states", "attentions"))}
    assert len(names) == (5 if "output_hidden_states" in recorded else 3)
    for name in names:
        for a, b in zip(whole[name], chunked[name], strict=True):
            if a is None:  # a state that was not selected
                assert b is None, name
            else:
                torch.testing.assert_close(b, a, msg=name)
    if "output_hidden_states" in recorded:
        assert [states is None for states in whole.hidden_states].count(False) == 2
        assert [len(states) for states in chunked.transformer_decoder_hidden_states if states is not None] == [5, 5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_close(dtype):
    model = tiny_model()
    queries = torch.randn(1, 2, 5, 12, 32)
    frames = torch.randn(2, 3, 64, 64)
    expected = model.model.associate(queries).video_states[-1]
    pixels = model.model.pixel_level_module(frames)
    model = model.to(dtype)
    out = model(torch.randn(1, 3, 3, 64, 64, dtype=dtype))
    assert out.masks_queries_logits.dtype == out.class_queries_logits.dtype == dtype
    assert out.masks_queries_logits.isfinite().all() and out.class_queries_logits.isfinite().all()
    relative = 0.06 if dtype == torch.bfloat16 else 0.008
    states = model.model.associate(queries.to(dtype)).video_states[-1].float()
    assert (states - expected).norm() / expected.norm() < relative
    ours = model.model.pixel_level_module(frames.to(dtype))
    for a, b in zip(ours[1:3], pixels[1:3]):  # the masked decoder's thresholds make later stages incomparable
        assert (a.float() - b).norm() / b.norm() < relative


@pytest.mark.parametrize(
    ("autocast", "pixel_decoder"), [(torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)]
)
@torch.no_grad()
def test_pixel_decoder_stays_in_float32_under_fp16_autocast(autocast, pixel_decoder):
    model, dtypes = tiny_model(), {}

    def note_dtype(name):
        return lambda module, inputs, output: dtypes.__setitem__(name, output.dtype)

    encoder = model.model.pixel_level_module.decoder.encoder
    encoder.layers[0].fc1.register_forward_hook(note_dtype("pixel decoder"))
    model.video_class_predictor.register_forward_hook(note_dtype("head"))
    with torch.autocast("cpu", autocast):
        model(torch.randn(1, 1, 3, 32, 64))
    assert dtypes == {"pixel decoder": pixel_decoder, "head": autocast}


def test_detector_compiles_into_one_graph(model):
    frames = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        explained = torch._dynamo.explain(model.model.detect)(frames)
        assert explained.graph_break_count == 0, explained.break_reasons
        compiled = torch.compile(model.model.detect, fullgraph=True, backend="aot_eager")(frames)
        eager = model.model.detect(frames)
    torch.testing.assert_close(compiled.video_mask_features, eager.video_mask_features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.frame_states[-1], eager.frame_states[-1], rtol=1e-4, atol=1e-4)


# -- Training ----------------------------------------------------------------------------------------------------------


def test_gradient_checkpointing_changes_nothing():
    model = tiny_model().train()
    video, targets = torch.randn(1, 3, 3, 64, 64), labels(1, 3, 64, 64)
    loss, plain = gradients(model, video, targets)
    model.gradient_checkpointing_enable()
    layers = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    expected = ("VitaPixelDecoderLayer", "VitaMaskedDecoderLayer", "VitaObjectEncoderLayer", "VitaDecoderLayer")
    assert {type(layer).__name__ for layer in layers} >= set(expected)
    again, checkpointed = gradients(model, video, targets)
    assert loss == again
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_model_trains_after_inference_mode():
    """What is cached for a frame size must not be an inference tensor, which autograd cannot save."""
    model, video = tiny_model(), torch.randn(1, 2, 3, 96, 32)  # a size of this test alone
    with torch.inference_mode():
        model.eval()(video)
    model.train()(video, **labels(1, 2, 96, 32)).loss.backward()


def test_frozen_detector_trains_the_video_part_only(tmp_path):
    model = tiny_model(freeze_detector=True)
    model.save_pretrained(tmp_path)
    for frozen in (model, VitaForVideoInstanceSegmentation.from_pretrained(tmp_path)):
        asked = {name.removeprefix("model.").split(".")[0] for name, p in frozen.named_parameters() if p.requires_grad}
        assert asked == {
            "video_mask_projection",
            "object_encoder",
            "object_decoder",
            "video_class_predictor",
            "video_mask_embedder",
            "frame_similarity_embedder",
            "video_similarity_embedder",
        }
        _, grads = gradients(frozen.train(), torch.randn(1, 2, 3, 64, 64), labels(1, 2, 64, 64))
        assert {name.removeprefix("model.").split(".")[0] for name in grads} == asked
        assert frozen.model.object_encoder.training


@pytest.mark.parametrize("backbone", ["timm resnet", "resnet", "swin"])
def test_frozen_detector_keeps_its_batch_norms_and_nothing_else_in_evaluation_mode(backbone):
    model = tiny_model(backbone, freeze_detector=True)
    assert model.train() is model
    parts = list(model.model.pixel_level_module.modules())
    norms = [part for part in parts if isinstance(part, torch.nn.BatchNorm2d)]
    assert bool(norms) == (backbone == "resnet")  # timm's are frozen ones
    assert not any(norm.training for norm in norms)
    assert all(part.training for part in parts if part not in norms)  # so that drop path drops, as in the reference
    before = {name: tensor.clone() for name, tensor in model.model.pixel_level_module.state_dict().items()}
    model(torch.randn(1, 2, 3, 64, 64), **labels(1, 2, 64, 64)).loss.backward()
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in model.model.pixel_level_module.state_dict().items()
    )
    assert not any(part.training for part in model.eval().modules())
    assert all(part.training for part in tiny_model(backbone).train().modules())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_offloaded_weights_change_nothing(tmp_path, backbone):
    model, video = tiny_model(backbone), torch.randn(1, 2, 3, 64, 96)
    model.save_pretrained(tmp_path)
    room = {"cpu": sum(parameter.numel() for parameter in model.parameters())}  # a quarter of the bytes
    split = VitaForVideoInstanceSegmentation.from_pretrained(
        tmp_path, device_map="auto", max_memory=room, offload_folder=tmp_path / "offloaded"
    ).eval()
    assert "disk" in split.hf_device_map.values()
    with torch.no_grad():
        got, expected = split(video), model(video)
    assert torch.equal(got.class_queries_logits, expected.class_queries_logits)
    assert torch.equal(got.masks_queries_logits, expected.masks_queries_logits)


def test_output_in_training():
    model = tiny_model().train()
    video = torch.randn(2, 3, 3, 64, 64)
    out = model(video, **labels(2, 3, 64, 64))
    assert out.masks_queries_logits is None
    assert out.frame_queries.shape == (3, 2, 3, 12, 32)
    assert out.class_queries_logits.shape == (2, 10, 8)
    assert model(video).masks_queries_logits.shape == (2, 10, 3, 16, 16)
    validation = model.eval()(video, **labels(2, 3, 64, 64))
    assert validation.masks_queries_logits.shape == (2, 10, 3, 16, 16) and validation.loss.isfinite()


# -- Saving, loading, initialization -----------------------------------------------------------------------------------


def test_round_trip_in_a_fresh_process_is_exact(golden, tmp_path):
    model = golden.model().eval()
    model.save_pretrained(tmp_path / "model")
    video = torch.randn(1, 3, 3, 64, 96)
    torch.save(video, tmp_path / "video.pt")
    with torch.no_grad():
        out = model(video)
    script = """
import sys, torch, vita_hf
from transformers import AutoModel, AutoModelForUniversalSegmentation
folder = sys.argv[1]
video = torch.load(folder + "/video.pt", weights_only=True)
with torch.no_grad():
    out = AutoModelForUniversalSegmentation.from_pretrained(folder + "/model").eval()(video)
    base = AutoModel.from_pretrained(folder + "/model").eval()(video)
keys = ("class_queries_logits", "masks_queries_logits", "mask_embeddings", "frame_queries")
torch.save({**{key: out[key] for key in keys}, "base": base.frame_queries}, folder + "/out.pt")
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    theirs = torch.load(tmp_path / "out.pt", weights_only=True)
    for key in ("class_queries_logits", "masks_queries_logits", "mask_embeddings", "frame_queries"):
        assert torch.equal(theirs[key], out[key]), key
    assert torch.equal(theirs["base"], out.frame_queries)


def test_auto_classes(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "vita"
    assert type(AutoConfig.from_pretrained(tmp_path)) is VitaConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is VitaModel
    mapped = AutoModelForUniversalSegmentation.from_pretrained(tmp_path, device_map="cpu")
    assert type(mapped) is VitaForVideoInstanceSegmentation
    with torch.device("meta"):
        assert all(p.is_meta for p in VitaForVideoInstanceSegmentation(model.config).parameters())


@pytest.mark.parametrize("backbone", ["timm resnet", "timm convnext", "swin"])
def test_missing_weights_are_drawn_as_at_construction(backbone, tmp_path):
    """Every weight that a checkpoint lacks gets the distribution that building the model gives it."""
    from safetensors.torch import load_file, save_file

    config = tiny_config(backbone)
    fresh = VitaForVideoInstanceSegmentation(config)
    fresh.save_pretrained(tmp_path)
    kept = {"class_predictor.bias": load_file(tmp_path / "model.safetensors")["class_predictor.bias"]}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = VitaForVideoInstanceSegmentation.from_pretrained(tmp_path)
    for name, expected in fresh.state_dict().items():
        drawn = loaded.state_dict()[name]
        assert drawn.isfinite().all(), name
        if expected.numel() < 64:
            assert drawn.abs().max() <= max(4 * expected.abs().max(), 1), name
        elif expected.float().std() == 0:
            assert torch.equal(drawn, expected), name
        else:
            assert drawn.float().std() == pytest.approx(expected.float().std().item(), rel=0.35), name


def test_initialization_is_the_references():
    config = tiny_config("swin", hidden_dim=128, feature_size=128, mask_feature_size=128)
    model = VitaForVideoInstanceSegmentation(config)

    def bound(tensor):
        return tensor.abs().max().item()

    def uniform(tensor, limit):
        assert 0.97 * limit < bound(tensor) <= limit
        assert tensor.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)

    attention = model.model.object_decoder.layers[0].cross_attn
    uniform(attention.q_proj.weight, (6 / (4 * 128)) ** 0.5)  # nn.MultiheadAttention: one (3C, C) matrix
    uniform(attention.out_proj.weight, (6 / (2 * 128)) ** 0.5)
    assert bound(attention.q_proj.bias) == bound(attention.out_proj.bias) == 0
    masked = model.model.transformer_module.decoder.layers[0]
    uniform(masked.cross_attn.in_proj_weight, (6 / (4 * 128)) ** 0.5)
    uniform(masked.self_attn.k_proj.weight, (6 / (4 * 128)) ** 0.5)
    uniform(masked.fc1.weight, (6 / (128 + 48)) ** 0.5)
    uniform(model.model.object_encoder.input_projection.weight, 128**-0.5)  # nn.Linear's own
    uniform(model.video_class_predictor.weight, 128**-0.5)
    uniform(model.video_mask_embedder.layers[0].layers[0].weight, 128**-0.5)
    uniform(model.model.video_mask_projection.weight, (3 / 128) ** 0.5)  # c2_xavier_fill
    pixel_decoder = model.model.pixel_level_module.decoder
    uniform(pixel_decoder.layer_1[0].weight, (3 / (128 * 9)) ** 0.5)
    uniform(pixel_decoder.input_projections[0][0].weight, (6 / (64 + 128)) ** 0.5)
    assert bound(pixel_decoder.input_projections[0][0].bias) == bound(pixel_decoder.mask_projection.bias) == 0
    deformable = pixel_decoder.encoder.layers[0].self_attn
    assert bound(deformable.sampling_offsets.weight) == bound(deformable.attention_weights.weight) == 0
    # Deformable DETR: head h looks in direction 2πh/heads, point p at p + 1 pixels
    offsets = deformable.sampling_offsets.bias.view(4, 3, 4, 2)
    torch.testing.assert_close(offsets[1, 2, 3], torch.tensor([0.0, 4.0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(offsets[2, 0, 0], torch.tensor([-1.0, 0.0]), rtol=0, atol=1e-5)
    for embedding in (model.model.object_decoder.queries_features, model.model.transformer_module.queries_embedder):
        assert embedding.weight.std().item() == pytest.approx(1, rel=0.1)
    assert pixel_decoder.level_embed.std().item() == pytest.approx(1, rel=0.2)


# -- Messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values_videos": torch.randn(2, 3, 64, 64)}, r"expected \(B, T, 3, H, W\).*got \(2, 3, 64, 64\)"),
        ({"pixel_values_videos": torch.randn(1, 2, 3, 64, 60)}, r"multiples of 32, got \(64, 60\)"),
        ({"frame_mask": torch.ones(1, 3)}, r"frame_mask: expected \(B, T\) = \(1, 2\), got \(1, 3\)"),
        ({"class_labels": None}, "expected both or neither"),
        ({"mask_labels": []}, "expected one entry for each of 1 videos, got 0 and 1"),
        (
            {"mask_labels": [torch.ones(3, 2, 32, 64)]},
            r"mask_labels\[0\]: expected .*\(3, 2, 64, 64\).*\(3, 2, 32, 64\)",
        ),
        (
            {"class_labels": [torch.tensor([0, 1, 7])]},
            r"class_labels\[0\]: expected integers in \[0, 7\), got \[0, 1, 7\]",
        ),
        ({"class_labels": [torch.tensor([0.0, 1, 2])]}, r"class_labels\[0\]: expected integers"),
        ({"frame_mask": torch.tensor([[True, False]])}, "same number of frames, without padding"),
    ],
)
def test_wrong_input_is_an_error_before_the_network_runs(model, change, message):
    inputs = {"pixel_values_videos": torch.randn(1, 2, 3, 64, 64), **labels(1, 2, 64, 64), **change}
    with pytest.raises(ValueError, match=message):
        model(**inputs)

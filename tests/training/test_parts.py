"""Parameter groups, starting points, precision and what else a training is put together from."""

import logging
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    ResNetBackbone,
    ResNetConfig,
    SwinConfig,
    TimmBackboneConfig,
)

from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation
from vita_hf.data.clips.schedule import StepBatchSampler
from vita_hf.data.clips.streamed import StreamBatchSampler
from vita_hf.recipes import TrainingSettings, list_recipes, load_recipe
from vita_hf.training.initialization import build_model, pretrained_name
from vita_hf.training.optimizer import make_optimizer, parameter_groups, set_learning_rate
from vita_hf.training.precision import check_sharding, choose_precision, keep_pixel_decoder_in_float32
from vita_hf.training.saving import base_model, describe_changes, learning_curve

SETTINGS = TrainingSettings(steps=10, batch_size=1, learning_rate=1e-3, learning_rate_steps=(4, 8), warmup_steps=0)
SWIN = {
    "model_type": "swin",
    **{"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
SIZES = {
    **{"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "num_attention_heads": 4, "num_queries": 5},
    **{"encoder_layers": 1, "encoder_feedforward_dim": 16, "decoder_layers": 3, "dim_feedforward": 16},
}
VIDEO = {
    **{"num_video_queries": 4, "object_encoder_layers": 1, "object_decoder_layers": 1, "num_last_layers": 2},
    **{"video_num_attention_heads": 4, "video_dim_feedforward": 16},
}
NAMES = {0: "cat", 1: "dog", 2: "fish"}


def tiny(backbone=SWIN, **fields):
    return VitaForVideoInstanceSegmentation(
        VitaConfig(backbone_config=dict(backbone), id2label=NAMES, **{**SIZES, **VIDEO, **fields})
    )


def test_parameter_groups():
    model = tiny()
    groups = {
        ("encoder." in group["names"][0] and "pixel_level_module" in group["names"][0], group["weight_decay"]): group
        for group in parameter_groups(model, SETTINGS)
    }
    assert set(groups) == {(True, 0.05), (True, 0.0), (False, 0.05), (False, 0.0)}
    for (backbone, _), group in groups.items():
        assert group["lr"] == group["base_lr"] == pytest.approx(1e-4 if backbone else 1e-3)
        assert all(("pixel_level_module.encoder." in name) == backbone for name in group["names"])
    undecayed = groups[True, 0.0]["names"] + groups[False, 0.0]["names"]
    decayed = groups[True, 0.05]["names"] + groups[False, 0.05]["names"]
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(undecayed) + len(decayed) == len(wanted) and {*undecayed, *decayed} == wanted
    for name in undecayed:
        is_norm = "norm" in name or ".input_projections." in name or "adapter_1.1." in name or "layer_1.1." in name
        is_embedding = name.endswith(("queries_embedder.weight", "queries_features.weight", "level_embed.weight"))
        assert is_norm or is_embedding or "relative_position_bias_table" in name, name
    for name in ("decoder.level_embed", "class_predictor.bias", "in_proj_bias", "fc1.bias", "q_proj.bias"):
        assert any(found.endswith(name) for found in decayed), name
    assert any("relative_position_bias_table" in name for name in groups[True, 0.0]["names"])


def test_learning_rate_of_every_group():
    optimizer = make_optimizer(tiny(), SETTINGS)
    rates = []
    for step in range(10):
        assert set_learning_rate(optimizer, SETTINGS, step) == pytest.approx(
            max(g["lr"] for g in optimizer.param_groups)
        )
        rates.append([round(group["lr"] / group["base_lr"], 9) for group in optimizer.param_groups])
    assert rates == [[1.0] * 4] * 4 + [[0.1] * 4] * 4 + [[0.01] * 4] * 2


def test_from_a_mask2former_with_other_classes(tmp_path, caplog):
    config = Mask2FormerConfig(backbone_config=SwinConfig(**SWIN), num_labels=7, **SIZES)
    detector = Mask2FormerForUniversalSegmentation(config)
    detector.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        model = build_model({**VIDEO, "num_queries": 50}, NAMES, str(tmp_path))
    assert model.config.num_queries == 5  # the checkpoint's
    assert model.class_predictor.weight.shape == (4, 32)
    ours, theirs = model.state_dict(), detector.state_dict()
    shared = [name for name in theirs if name in ours and theirs[name].shape == ours[name].shape]
    assert len(shared) > 100
    for name in shared:
        assert torch.equal(ours[name], theirs[name]), name
    assert "class heads made anew" in caplog.text and "7 classes" in caplog.text
    assert "is a detector" in caplog.text


def test_from_a_vita_model(tmp_path, caplog):
    first = tiny(object_encoder_window_size=0)
    first.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        same = build_model({"object_encoder_window_size": 3, "num_video_queries": 9}, NAMES, str(tmp_path))
    assert "made anew" not in caplog.text
    assert same.config.object_encoder_window_size == 3 and same.config.num_video_queries == 4
    for name, tensor in first.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor), name
    renamed = build_model({}, {0: "a", 1: "b", 2: "c"}, str(tmp_path))  # as many classes, but others
    changed = {
        name for name, tensor in first.state_dict().items() if not torch.equal(renamed.state_dict()[name], tensor)
    }
    assert changed == {
        f"{head}.{kind}" for head in ("class_predictor", "video_class_predictor") for kind in ("weight", "bias")
    }


def test_from_a_backbone(tmp_path):
    small = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    config = ResNetConfig(**small, out_features=["stage1", "stage2", "stage3", "stage4"])
    backbone = ResNetBackbone(config)
    backbone.save_pretrained(tmp_path)
    fields = {"backbone_config": {**config.to_dict(), "_name_or_path": str(tmp_path)}, **SIZES, **VIDEO}
    model = build_model(fields, NAMES, "backbone")
    encoder = model.model.pixel_level_module.encoder.state_dict()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(encoder[name], tensor), name
    with pytest.raises(ValueError, match="expected the recipe's backbone_config to say with _name_or_path"):
        build_model({**fields, "backbone_config": config.to_dict()}, NAMES, "backbone")


def test_every_recipe_says_whose_backbone_it_starts_from():
    names = set()
    for recipe in list_recipes():
        model = load_recipe(recipe).model
        if recipe != "tiny-synthetic":
            names.add(pretrained_name(VitaConfig(**model).backbone_config))
    assert names == {"resnet50.tv_in1k", "resnet101.tv_in1k", "microsoft/swin-large-patch4-window12-384-in22k"}


def test_a_model_of_another_kind_is_refused(tmp_path):
    ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"expected a VITA or Mask2Former model, .* is of type 'resnet'"):
        build_model({}, NAMES, str(tmp_path))


def test_base_model_of_the_card(tmp_path):
    timm = SimpleNamespace(config=SimpleNamespace(backbone_config=TimmBackboneConfig(backbone="resnet50")))
    assert base_model("scratch", timm) is None
    assert base_model("backbone", timm) == "timm/resnet50.tv_in1k"
    assert base_model("facebook/some-model", timm) == "facebook/some-model"
    assert base_model(f"{tmp_path}/", timm) == tmp_path.name


def test_precision(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert choose_precision("fp16", cpu=True) == "fp16"
    assert choose_precision("auto", cpu=True) == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what `accelerate launch` sets by itself
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert choose_precision("auto", cpu=False) == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert choose_precision("auto", cpu=False) is None


def test_pixel_decoder_stays_in_float32_under_autocast():
    model = tiny().eval()
    dtypes = {}

    def note(name):
        def hook(module, inputs, output):
            dtypes[name] = output.dtype

        return hook

    level = model.model.pixel_level_module
    level.decoder.encoder.layers[0].fc1.register_forward_hook(note("pixel decoder"))
    model.video_class_predictor.register_forward_hook(note("head"))
    keep_pixel_decoder_in_float32(model)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(1, 1, 3, 32, 64))
    assert dtypes == {"pixel decoder": torch.float32, "head": torch.bfloat16}


def test_sharding(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)

    def sharded(mixed_precision="bf16", version=2, efficient=False):
        plugin = SimpleNamespace(cpu_ram_efficient_loading=efficient)
        return SimpleNamespace(
            distributed_type=DistributedType.FSDP,
            mixed_precision=mixed_precision,
            is_fsdp2=version == 2,
            state=SimpleNamespace(fsdp_plugin=plugin),
        )

    check_sharding(sharded(), evaluates=False)
    with pytest.raises(ValueError, match="while parameters are sharded"):
        check_sharding(sharded(), evaluates=True)
    with pytest.raises(ValueError, match="expected bf16 or no with FSDP, got fp16"):
        check_sharding(sharded("fp16"), evaluates=False)
    with pytest.raises(ValueError, match="fsdp_version: expected 2, got 1"):
        check_sharding(sharded(version=1), evaluates=False)
    with pytest.raises(ValueError, match="fsdp_cpu_ram_efficient_loading: expected false"):
        check_sharding(sharded(efficient=True), evaluates=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="which Accelerate ignores on the CPU"):
        check_sharding(SimpleNamespace(distributed_type=DistributedType.NO, mixed_precision="no"), evaluates=False)


def test_what_may_change_on_resuming():
    before = {"training": {"steps": 5, "learning_rate_steps": [3], "seed": 1}, "evaluation": {"top_k": 10}, "model": {}}
    now = {
        "training": {"steps": 9, "learning_rate_steps": [7], "seed": 2},
        "evaluation": {"top_k": 5},
        "model": {"a": 1},
    }
    assert describe_changes(before, now) == ["model.a", "training.seed"]


def test_learning_curve():
    scores = {"AP": 0.123456, "AP50": 0.5, "AP75": 0.25, "AR1": 1.0}
    entries = [{"step": 1, "loss": 3.0}, {"step": 1, "evaluation": scores}, {"step": 2, "loss": 2.5}]
    assert learning_curve(entries) == [{"step": 1, "loss": 3.0, "AP": 0.1235, "AP50": 0.5, "AP75": 0.25}]


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_processes_share_a_stream(monkeypatch, micro_batches):
    """Both know the place of the next step when they have read their own part, and together read every row once."""

    class Stream:
        def __init__(self, rows, seed, epoch, buffer_size, position):
            self.epoch, self.position = epoch, position

        def __next__(self):
            self.position += 1
            if self.position > 10:
                self.epoch, self.position = self.epoch + 1, 1
            return {"video_id": 10 * self.epoch + self.position - 1}

    monkeypatch.setattr("vita_hf.data.clips.streamed.RowStream", Stream)
    clips = SimpleNamespace(rows=None, seed=0, buffer_size=1)
    options = {"micro_batches": micro_batches, "num_processes": 2}
    places, seen = [], []
    for process in (0, 1):
        sampler = StreamBatchSampler(clips, StepBatchSampler(3, 8, process_index=process, **options))
        batches = iter(sampler)
        for step in range(1, 4):
            for _ in range(micro_batches):
                seen += [(n, row["video_id"]) for n, row in next(batches)]
            places.append((step, sampler.place(step)))
    assert sorted(seen) == [(n, n) for n in range(24)]
    assert places[:3] == places[3:] == [(1, [0, 8]), (2, [1, 6]), (3, [2, 4])]
    resumed = StreamBatchSampler(clips, StepBatchSampler(3, 8, process_index=1, start_step=2, **options), [1, 6])
    rest = [(n, row["video_id"]) for batch in resumed for n, row in batch]
    assert rest == [item for item in seen[12:] if item[0] >= 16]

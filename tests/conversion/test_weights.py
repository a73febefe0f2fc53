"""Original state dicts: names, shapes, and files that are refused."""

import io
import json
import logging
import os
import zipfile

import pytest
import torch
import yaml

import vita_hf
from helpers.detectron2 import SWIN, settings
from helpers.golden import GOLDEN
from vita_hf.conversion import convert_state_dict, load_original_checkpoint
from vita_hf.conversion.detectron2_config import config_from_detectron2
from vita_hf.recipes import config_from_recipe, load_recipe


@pytest.fixture(scope="module")
def original() -> dict[str, torch.Tensor]:
    return torch.load(SWIN["weights"], weights_only=True)["model"]


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return vita_hf.VitaForVideoInstanceSegmentation(config_from_detectron2(settings("swin"))).state_dict()


def test_golden_model(golden, model):
    """The numbers themselves are compared in test_golden_inference and test_golden_training."""
    original = torch.load(golden.folder / "model.pth", weights_only=True)["model"]
    converted = model.state_dict()
    assert not model.training
    assert all(tensor.dtype == torch.float32 for tensor in converted.values())
    assert not any(tensor.is_meta for tensor in [*converted.values(), *model.buffers()])
    stacked = original["vita_module.enc_self_attn.1.self_attn.in_proj_weight"].chunk(3)
    for letter, part in zip("qkv", stacked):
        assert torch.equal(converted[f"model.object_encoder.layers.1.self_attn.{letter}_proj.weight"], part)
    for new, old in {
        "class_predictor.bias": "sem_seg_head.predictor.class_embed.bias",
        "video_class_predictor.bias": "vita_module.class_embed.bias",
        "model.object_decoder.queries_embedder.weight": "vita_module.query_embed.weight",
        "model.object_decoder.queries_features.weight": "vita_module.query_feat.weight",
        "frame_similarity_embedder.weight": "vita_module.sim_embed_frame.weight",
        "video_similarity_embedder.weight": "vita_module.sim_embed_clip.weight",
    }.items():
        assert torch.equal(converted[new], original[old]), new


@pytest.mark.parametrize(
    "file, recipe, keys, leftovers",
    [
        ("vita_R50_bs8", "ytvis2019-r50", 706, 2),
        ("vita_R101_bs8", "ytvis2019-r101", 961, 2),
        ("vita_SWIN_bs8", "ytvis2019-swinl", 798, 26),
    ],
)
def test_official_keys(file, recipe, keys, leftovers):
    facts = json.loads((GOLDEN / "official_keys" / f"{file}.json").read_text())
    with torch.device("meta"):
        model = vita_hf.VitaForVideoInstanceSegmentation(config_from_recipe(load_recipe(recipe)))
        original = {
            name: torch.empty(shape, dtype=getattr(torch, dtype))
            for name, (dtype, shape) in facts["state_dict"].items()
        }
    assert len(original) == keys
    converted, left = convert_state_dict(original, model.state_dict())
    assert len(left) == leftovers
    unused = sum(p.numel() for name, p in model.named_parameters() if "encoder.swin.layernorm" in name)
    assert sum(p.numel() for p in model.parameters()) - unused == facts["num_parameters"]
    used = sum(tensor.numel() for name, tensor in original.items() if name not in left)
    assert sum(tensor.numel() for tensor in converted.values()) == used


def test_leftovers_are_reported(caplog):
    with caplog.at_level(logging.WARNING):
        load_original_checkpoint(**SWIN)
    assert [record.message for record in caplog.records if record.name == "vita_hf.conversion.checkpoint"] == [
        "Tensors of the checkpoint that the model does not need: "
        "backbone.layers.*.blocks.*.attn.relative_position_index (8), criterion.empty_weight, "
        "vita_criterion.empty_weight"
    ]


def test_every_key_that_does_not_fit_is_listed(original, expected):
    changed = dict(original)
    changed["vita_module.fq_positions.weight"] = changed.pop("vita_module.fq_pos.weight")
    changed["backbone.norm4.weight"] = torch.zeros(3, 2)
    changed["sem_seg_head.predictor.class_embed.weight"] = torch.zeros(41, 64)
    changed["vita_module.enc_ffn.9.linear1.bias"] = torch.zeros(40)
    changed["vita_module.enc_self_attn.0.self_attn.in_proj_bias"] = torch.zeros(96)
    with pytest.raises(ValueError) as error:
        convert_state_dict(changed, expected)
    assert str(error.value).splitlines() == [
        "the checkpoint does not fit the configuration",
        "In the checkpoint, but not in the model (3):",
        "  vita_module.fq_positions.weight 12×64",
        "  backbone.norm4.weight 3×2",
        "  vita_module.enc_ffn.9.linear1.bias 40",
        "In the model, but not in the checkpoint (1):",
        "  model.object_decoder.frame_queries_embedder.weight 12×64",
        "Of another shape (4):",
        "  sem_seg_head.predictor.class_embed.weight → class_predictor.weight: expected 8×64, got 41×64",
        *(
            "  vita_module.enc_self_attn.0.self_attn.in_proj_bias → "
            f"model.object_encoder.layers.0.self_attn.{letter}_proj.bias: expected 64, got 32"
            for letter in "qkv"
        ),
    ]


@pytest.mark.parametrize("name", ["vita_module.decoder_norm.weight", "backbone.patch_embed.proj.bias"])
def test_one_missing_key(original, expected, name):
    with pytest.raises(ValueError, match=r"In the model, but not in the checkpoint \(1\)"):
        convert_state_dict({key: value for key, value in original.items() if key != name}, expected)


def test_bare_state_dict_and_training_checkpoint(tmp_path, original):
    torch.save(original, tmp_path / "bare.pth")
    full = {"model": original, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "iteration": 7}
    torch.save(full, tmp_path / "full.pth", _use_new_zipfile_serialization=False)
    bare = load_original_checkpoint(tmp_path / "bare.pth", SWIN["config_file"]).state_dict()
    full = load_original_checkpoint(tmp_path / "full.pth", SWIN["config_file"]).state_dict()
    assert all(torch.equal(tensor, full[name]) for name, tensor in bare.items() if "swin.layernorm" not in name)


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_with_code_are_refused(tmp_path, original, zipped):
    weights = tmp_path / "model.pth"
    torch.save(
        {"model": original, "extra": Malicious(tmp_path / "was-here")}, weights, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ValueError, match=r"model.pth: refused: it holds Python objects \(\w+\.mkdir\)"):
        load_original_checkpoint(weights, SWIN["config_file"])
    assert not (tmp_path / "was-here").exists()


def test_unreadable_weights(tmp_path):
    weights = tmp_path / "model.pth"
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint: .*model.pth"):
        load_original_checkpoint(weights, SWIN["config_file"])
    for content in (b"", b"<!DOCTYPE html><html>quota exceeded</html>", SWIN["weights"].read_bytes()[:9000]):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=r"model.pth: refused: not a PyTorch checkpoint, or a damaged one"):
            load_original_checkpoint(weights, SWIN["config_file"])
    for content in ([1], {"model": {}}, {"model": {"a": 1}}):
        torch.save(content, weights)
        with pytest.raises(ValueError, match=r"model.pth: expected a state dict, name → tensor"):
            load_original_checkpoint(weights, SWIN["config_file"])


def test_compressed_entries_are_refused(tmp_path):
    """Mapped into memory, they are noise of the right shapes."""
    weights = tmp_path / "model.pth"
    with zipfile.ZipFile(SWIN["weights"]) as plain, zipfile.ZipFile(weights, "w", zipfile.ZIP_DEFLATED) as compressed:
        for entry in plain.infolist():
            compressed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(ValueError, match=r"model\.pth: refused: its entries are compressed"):
        load_original_checkpoint(weights, SWIN["config_file"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.fill_(torch.nan),
            r"values that are not finite in float32 \(1\):\n  vita_module.class_embed.bias$",
        ),
        (lambda t: t.double() + 1e300, "values that are not finite in float32"),
        (lambda t: t.int(), r"expected dense tensors of real numbers, .*\n  vita_module.class_embed.bias: torch.int32"),
        (lambda t: t.to(torch.complex64), "vita_module.class_embed.bias: torch.complex64"),
        (lambda t: t.to_sparse(), "vita_module.class_embed.bias: torch.float32, torch.sparse_coo"),
    ],
)
def test_weights_that_are_no_finite_numbers(tmp_path, original, change, message):
    name, weights = "vita_module.class_embed.bias", tmp_path / "model.pth"
    torch.save({**original, name: change(original[name].clone())}, weights)
    with pytest.raises(ValueError, match=rf"model\.pth: [\s\S]*{message}"):
        load_original_checkpoint(weights, SWIN["config_file"])


def test_damaged_directories_of_zip_files(tmp_path):
    """Python's zipfile raises for this one even when asked whether it is a zip file."""
    file = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, file)
    damaged = bytearray(file.getvalue())
    locator = damaged.rindex(b"PK\x06\x07")  # of the 64-bit directory: its last field counts the disks
    damaged[locator + 16] = 7
    (tmp_path / "model.pth").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"model\.pth: "):
        load_original_checkpoint(tmp_path / "model.pth", SWIN["config_file"])


def test_tensors_without_values(tmp_path):
    torch.save({"vita_module.class_embed.bias": torch.empty(3, device="meta")}, tmp_path / "model.pth")
    with pytest.raises(
        ValueError, match=r"model\.pth: 1 tensors without values .* such as 'vita_module.class_embed.bias'"
    ):
        load_original_checkpoint(tmp_path / "model.pth", SWIN["config_file"])


def test_names_that_are_no_strings(tmp_path):
    torch.save({1: torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth: expected names of tensors, got the key 1"):
        load_original_checkpoint(tmp_path / "model.pth", SWIN["config_file"])


def test_network_must_be_named_once():
    for both in ({}, {"config_file": SWIN["config_file"], "recipe": "ovis-r50"}):
        with pytest.raises(ValueError, match=r"expected either config_file or recipe: .* Recipes: coco-r101, "):
            load_original_checkpoint(SWIN["weights"], **both)


@pytest.mark.parametrize("argument", ["config_file", "recipe"])
def test_recipe_by_name(tmp_path, monkeypatch, argument):
    """The tiny weights don't fit the recipe's network: the error shows which network it was."""
    monkeypatch.setattr("vita_hf.conversion.checkpoint.VitaForVideoInstanceSegmentation", on_meta)
    with pytest.raises(ValueError, match=r"class_predictor.weight: expected 26×256, got 8×64"):
        load_original_checkpoint(SWIN["weights"], **{argument: "ovis-swinl"})


def on_meta(config):
    with torch.device("meta"):
        return vita_hf.VitaForVideoInstanceSegmentation(config)


def test_weights_without_similarity_heads(tmp_path, original):
    (tmp_path / "config.yaml").write_text(yaml.dump(settings("swin", MODEL__VITA__SIM_WEIGHT=0.0)))
    torch.save({name: tensor for name, tensor in original.items() if "sim_embed" not in name}, tmp_path / "model.pth")
    model = load_original_checkpoint(tmp_path / "model.pth", tmp_path / "config.yaml")
    assert not any("similarity" in name for name in model.state_dict())
    with pytest.raises(ValueError, match=r"but not in the model \(4\):\n  vita_module.sim_embed_frame.weight"):
        load_original_checkpoint(SWIN["weights"], tmp_path / "config.yaml")

"""Official checkpoints and configs → models, processors and directories."""

import json
import logging
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoModelForUniversalSegmentation, AutoVideoProcessor, SwinConfig, TimmBackboneConfig

import vita_hf
from vita_hf.backbones import VitaResNetConfig
from vita_hf.cards.model import model_card
from vita_hf.commands import main as cli
from vita_hf.conversion.checkpoint import convert_checkpoint, convert_state_dict, load_original_checkpoint
from vita_hf.conversion.detectron2_config import config_from_detectron2, processor_from_detectron2, read_detectron2_yaml
from vita_hf.recipes import config_from_recipe, load_recipe
from vita_hf.tracks.instances import VideoInstances
from vita_hf.video.sources import VideoReader

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_checkpoint.py"
SWIN = {"weights": GOLDEN / "swin" / "model.pth", "config_file": GOLDEN / "swin" / "config.yaml"}


def settings(variant: str = "r50", **changes) -> dict:
    """A variant's config; `MODEL__VITA__NHEADS=…` replaces a value, None removes it."""
    cfg = read_detectron2_yaml(GOLDEN / variant / "config.yaml")
    for name, value in changes.items():
        *path, last = name.split("__")
        section = cfg
        for part in path:
            section = section[part]
        if value is None:
            section.pop(last)
        else:
            section[last] = value
    return cfg


@pytest.fixture(scope="module")
def original() -> dict[str, torch.Tensor]:
    return torch.load(SWIN["weights"], weights_only=True)["model"]


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return vita_hf.VitaForVideoInstanceSegmentation(config_from_detectron2(settings("swin"))).state_dict()


# Weights


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
        "Left out of the checkpoint, because nothing depends on it: "
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
        "In the checkpoint, without a place in the model (3):",
        "  vita_module.fq_positions.weight 12×64",
        "  backbone.norm4.weight 3×2",
        "  vita_module.enc_ffn.9.linear1.bias 40",
        "In the model, missing from the checkpoint (1):",
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
    with pytest.raises(ValueError, match=r"missing from the checkpoint \(1\)"):
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


# detectron2 configs


def test_config_of_golden_variants():
    r50, swin = config_from_detectron2(settings("r50")), config_from_detectron2(settings("swin"))
    backbone = r50.backbone_config
    assert isinstance(backbone, VitaResNetConfig)
    assert (backbone.depth, backbone.stem_channels, backbone.res2_channels) == (50, 8, 16)
    assert (backbone.width_per_group, backbone.num_groups, backbone.freeze_batch_norm_2d) == (8, 1, True)
    assert (r50.hidden_dim, r50.feature_size, r50.mask_feature_size) == (32, 32, 32)
    assert (r50.encoder_layers, r50.decoder_layers, r50.num_attention_heads, r50.dim_feedforward) == (2, 4, 4, 48)
    assert (r50.num_queries, r50.num_video_queries, r50.num_labels, r50.train_num_points) == (12, 10, 7, 196)
    assert (r50.object_encoder_layers, r50.object_decoder_layers, r50.object_encoder_window_size) == (3, 3, 6)
    assert (r50.video_num_attention_heads, r50.video_dim_feedforward, r50.num_last_layers) == (4, 40, 3)
    assert (r50.class_weight, r50.mask_weight, r50.dice_weight, r50.no_object_weight) == (2.0, 5.0, 5.0, 0.1)
    assert r50.dropout == 0.0
    assert r50.encoder_feedforward_dim == 1024
    assert config_from_detectron2(settings("r50_nowin")).object_encoder_window_size == 0
    # seven classes are not YouTube-VIS 2019's forty, although the config names that data set
    assert r50.id2label[6] == "LABEL_6"
    assert isinstance(swin.backbone_config, SwinConfig)
    assert (swin.backbone_config.embed_dim, swin.backbone_config.depths) == (8, [2, 2, 2, 2])
    assert (swin.backbone_config.num_heads, swin.backbone_config.window_size) == ([1, 2, 4, 4], 4)
    assert (swin.backbone_config.image_size, swin.backbone_config.drop_path_rate) == (64, 0.0)
    assert (swin.hidden_dim, swin.mask_feature_size, swin.video_num_attention_heads) == (64, 32, 2)


def test_switches():
    config = config_from_detectron2(
        settings(
            MODEL__VITA__SIM_WEIGHT=0,
            MODEL__VITA__DEEP_SUPERVISION=False,
            MODEL__VITA__FREEZE_DETECTOR=True,
            MODEL__VITA__NO_OBJECT_WEIGHT=0.2,
            MODEL__VITA__LAST_LAYER_NUM=2,
            MODEL__VITA__TEST_RUN_CHUNK_SIZE=5,
            MODEL__MASK_FORMER__DEEP_SUPERVISION=False,
            MODEL__MASK_FORMER__ENFORCE_INPUT_PROJ=True,
            MODEL__MASK_FORMER__NO_OBJECT_WEIGHT=0.3,
        )
    )
    assert (config.use_similarity_head, config.similarity_weight) == (False, 0.0)
    assert (config.use_video_auxiliary_loss, config.use_auxiliary_loss) == (False, False)
    assert (config.freeze_detector, config.enforce_input_projection) == (True, True)
    assert (config.video_no_object_weight, config.no_object_weight) == (0.2, 0.3)
    assert (config.num_last_layers, config.detector_chunk_size) == (2, 5)


def test_weights_without_similarity_heads(tmp_path, original):
    (tmp_path / "config.yaml").write_text(yaml.dump(settings("swin", MODEL__VITA__SIM_WEIGHT=0.0)))
    torch.save({name: tensor for name, tensor in original.items() if "sim_embed" not in name}, tmp_path / "model.pth")
    model = load_original_checkpoint(tmp_path / "model.pth", tmp_path / "config.yaml")
    assert not any("similarity" in name for name in model.state_dict())
    with pytest.raises(ValueError, match=r"without a place in the model \(4\):\n  vita_module.sim_embed_frame.weight"):
        load_original_checkpoint(SWIN["weights"], tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "changes, dataset, label",
    [
        ({"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 40}, "ytvis_2019_val", "hand"),
        ({"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 40}, "ytvis_2021_val", "earless_seal"),
        ({"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 25}, "ovis_val", "Giraffe"),
        ({"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 80}, "coco_2017_val", "fire hydrant"),
        ({"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 40}, "my_own_val", "LABEL_10"),
        ({"MODEL__SEM_SEG_HEAD__NUM_CLASSES": 41}, "ytvis_2019_val", "LABEL_10"),
    ],
)
def test_labels_of_datasets(changes, dataset, label):
    cfg = settings(**changes, DATASETS__TEST=[dataset], DATASETS__TRAIN=["coco2ytvis2019_train"])
    config = config_from_detectron2(cfg)
    assert config.id2label[10] == label
    assert config.label2id[label] == 10
    assert config.num_labels == changes["MODEL__SEM_SEG_HEAD__NUM_CLASSES"]


@pytest.mark.parametrize("depth", [50, 101])
def test_resnet_of_standard_widths_is_timms(depth):
    widths = {"STEM_OUT_CHANNELS": 64, "RES2_OUT_CHANNELS": 256, "WIDTH_PER_GROUP": 64, "NUM_GROUPS": 1}
    backbone = config_from_detectron2(
        settings(MODEL__RESNETS__DEPTH=depth, **{f"MODEL__RESNETS__{name}": width for name, width in widths.items()})
    ).backbone_config
    assert type(backbone) is TimmBackboneConfig
    assert (backbone.backbone, backbone.out_indices) == (f"resnet{depth}", [1, 2, 3, 4])
    assert backbone.freeze_batch_norm_2d


REFUSED = {
    "INPUT.FORMAT": "BGR",
    "MODEL.BACKBONE.NAME": "build_vit",
    "MODEL.META_ARCHITECTURE": "VideoMaskFormer",
    "MODEL.MASK_FORMER.DROPOUT": 0.1,
    "MODEL.MASK_FORMER.PRE_NORM": True,
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, True, True],
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
    "MODEL.RESNETS.RES5_DILATION": 2,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 8,
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NAME": "PerPixelBaselineHead",
    "MODEL.SEM_SEG_HEAD.NORM": "",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
    "MODEL.VITA.ENFORCE_INPUT_PROJ": False,
    "MODEL.VITA.HIDDEN_DIM": 64,
    "MODEL.VITA.PRE_NORM": True,
    "MODEL.VITA.SIM_USE_CLIP": False,
}
REFUSED_SWIN = {"APE": True, "PATCH_NORM": False, "PATCH_SIZE": 2, "QK_SCALE": 0.5, "DEPTHS": [2, 2, 2]}


@pytest.mark.parametrize(
    "variant, name, value",
    [("r50", *item) for item in REFUSED.items()]
    + [("swin", f"MODEL.SWIN.{name}", value) for name, value in REFUSED_SWIN.items()],
)
def test_settings_without_counterpart_are_refused_by_name(variant, name, value):
    cfg = settings(variant, **{name.replace(".", "__"): value})
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: expected .*, got {re.escape(repr(value))}"):
        config_from_detectron2(cfg)


def test_all_refused_settings_are_named_together():
    with pytest.raises(ValueError) as error:
        config_from_detectron2(settings(MODEL__VITA__PRE_NORM=True, MODEL__RESNETS__NORM="BN"))
    assert str(error.value) == (
        "the config describes what vita_hf cannot represent:\n"
        "  MODEL.VITA.PRE_NORM: expected False, got True\n"
        "  MODEL.RESNETS.NORM: expected 'FrozenBN', got 'BN'"
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"MODEL__VITA__NHEADS": "many"}, "MODEL.VITA.NHEADS: expected a value like 8, got 'many'"),
        ({"MODEL__VITA__SIM_WEIGHT": [1]}, r"MODEL.VITA.SIM_WEIGHT: expected a value like 0.5, got \[1\]"),
        ({"MODEL__VITA": 3}, "MODEL.VITA.ENFORCE_INPUT_PROJ: expected a mapping above it, got 3"),
        ({"MODEL__VITA__LAST_LAYER_NUM": 4}, "num_last_layers: expected at most decoder_layers - 1 = 3, got 4"),
        ({"MODEL__RESNETS__RES2_OUT_CHANNELS": 18}, "res2_channels: expected a multiple of 4, got 18"),
    ],
)
def test_unusable_values(changes, message):
    with pytest.raises(ValueError, match=message):
        config_from_detectron2(settings(**changes))


BASE = """
MODEL:
  BACKBONE: {NAME: "build_resnet_backbone", FREEZE_AT: 0}
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  RESNETS: {DEPTH: 50, STRIDE_IN_1X1: False, OUT_FEATURES: ["res2", "res3", "res4", "res5"]}
DATASETS:
  TEST: ("ytvis_2019_val",)
SOLVER: {BASE_LR: 1e-4}
INPUT: {FORMAT: "RGB", MIN_SIZE_TEST: 480}
"""
SHORT = """
_BASE_: bases/base.yaml
MODEL:
  META_ARCHITECTURE: "Vita"
  SEM_SEG_HEAD:
    NAME: "MaskFormerHead"
    NUM_CLASSES: 40
    CONVS_DIM: 256
    PIXEL_DECODER_NAME: "MSDeformAttnPixelDecoder"
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
    TRANSFORMER_ENC_LAYERS: 6
  MASK_FORMER:
    TRANSFORMER_DECODER_NAME: "VitaMultiScaleMaskedTransformerDecoder"
    TRANSFORMER_IN_FEATURE: "multi_scale_pixel_decoder"
    CLASS_WEIGHT: 2
    MASK_WEIGHT: 5.0
    DICE_WEIGHT: 5.0
    DROPOUT: 0.0
    DEC_LAYERS: 10
  VITA: {ENC_WINDOW_SIZE: 6}
INPUT: {MIN_SIZE_TEST: 360}
"""


def write(folder: Path, **files: str) -> Path:
    """Write `name=text` files; returns `main.yaml`."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return folder / "main.yaml"


def test_short_config_over_defaults_is_the_recipe(tmp_path):
    cfg = read_detectron2_yaml(write(tmp_path, main=SHORT, bases__base=BASE))
    recipe = load_recipe("ytvis2019-r50")
    assert config_from_detectron2(cfg).to_dict() == config_from_recipe(recipe).to_dict()
    assert processor_from_detectron2(cfg).to_dict() == vita_hf.VitaVideoProcessor(**recipe["processor"]).to_dict()


def test_bases_chain_from_the_file_that_names_them(tmp_path):
    path = write(
        tmp_path,
        main="{_BASE_: [a/a.yaml, b.yaml], MODEL: {VITA: {NHEADS: 2}}}",
        a__a="{_BASE_: ../c.yaml, MODEL: {VITA: {NHEADS: 4, DEC_LAYERS: 4}}, X: 1}",
        b="{MODEL: {VITA: {DEC_LAYERS: 5}}}",
        c="{MODEL: {VITA: {ENC_LAYERS: 7, DEC_LAYERS: 1}, DEVICE: cpu}}",
    )
    assert read_detectron2_yaml(path) == {
        "MODEL": {"VITA": {"NHEADS": 2, "DEC_LAYERS": 5, "ENC_LAYERS": 7}, "DEVICE": "cpu"},
        "X": 1,
    }


def test_unreadable_configs(tmp_path):
    path = tmp_path / "main.yaml"
    with pytest.raises(FileNotFoundError, match=r"no such config file: .*main.yaml$"):
        read_detectron2_yaml(path)
    with pytest.raises(FileNotFoundError, match=r"no such config file: .*gone.yaml, named as _BASE_ in .*main.yaml"):
        read_detectron2_yaml(write(tmp_path, main="_BASE_: gone.yaml"))
    with pytest.raises(ValueError, match=r"main.yaml: includes itself through _BASE_"):
        read_detectron2_yaml(write(tmp_path, main="_BASE_: other.yaml", other="_BASE_: main.yaml"))
    with pytest.raises(ValueError, match=r"main.yaml: expected a mapping of settings, got list"):
        read_detectron2_yaml(write(tmp_path, main="[1, 2]"))
    with pytest.raises(ValueError, match=r"main.yaml: not a YAML file of plain settings"):
        read_detectron2_yaml(write(tmp_path, main="{a: ["))


def test_yaml_runs_no_code(tmp_path):
    path = write(tmp_path, main="MODEL: {PIXEL_MEAN: !!python/tuple [1.0, 2.0, 3.0]}")
    assert read_detectron2_yaml(path) == {"MODEL": {"PIXEL_MEAN": [1.0, 2.0, 3.0]}}
    target = tmp_path / "was-here"
    write(tmp_path, main=f"A: !!python/object/apply:os.mkdir ['{target}']")
    with pytest.raises(ValueError, match=r"main.yaml: not a YAML file of plain settings"):
        read_detectron2_yaml(path)
    assert not target.exists()


def test_processor():
    processor = processor_from_detectron2(
        settings(
            "swin", INPUT__MAX_SIZE_TEST=900, MODEL__MASK_FORMER__SIZE_DIVISIBILITY=64, MODEL__PIXEL_STD=[51, 102, 255]
        )
    )
    assert dict(processor.size) == {"shortest_edge": 448, "longest_edge": 900}
    assert processor.size_divisor == 64
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]
    assert list(processor.image_std) == [0.2, 0.4, 1.0]
    with pytest.raises(ValueError, match=r"INPUT.FORMAT: expected 'RGB', got 'BGR'"):
        processor_from_detectron2(settings(INPUT__FORMAT=None))
    with pytest.raises(ValueError, match=r"MODEL.MASK_FORMER.SIZE_DIVISIBILITY: expected at least 1, got -1"):
        processor_from_detectron2(settings(MODEL__MASK_FORMER__SIZE_DIVISIBILITY=-1))


# Directories


@pytest.mark.parametrize("variant", ["r50", "swin"])
def test_directory_loads_as_the_same_model(tmp_path, variant):
    folder = GOLDEN / variant
    (tmp_path / "out").mkdir()  # an empty directory is no obstacle
    output = convert_checkpoint(folder / "model.pth", tmp_path / "out", folder / "config.yaml")
    assert output == (tmp_path / "out").resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in output.iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "video_preprocessor_config.json"),
    }
    config = json.loads((output / "config.json").read_text())
    assert (config["model_type"], config["dtype"], config["id2label"]["6"]) == ("vita", "float32", "LABEL_6")
    assert str(tmp_path) not in (output / "config.json").read_text()

    model, report = AutoModelForUniversalSegmentation.from_pretrained(output, output_loading_info=True)
    assert not any(report.values())
    expected = load_original_checkpoint(folder / "model.pth", folder / "config.yaml").state_dict()
    loaded = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    processor = AutoVideoProcessor.from_pretrained(output)
    assert type(processor) is vita_hf.VitaVideoProcessor
    assert processor.size["shortest_edge"] == (448 if variant == "swin" else 360)


def test_directory_is_not_overwritten_unasked(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    for overwrite, message in ((False, "output directory is not empty: "), (True, "because it holds no model")):
        with pytest.raises(FileExistsError, match=message):
            convert_checkpoint(**SWIN, output_dir=output, overwrite=overwrite)
    (output / "config.json").write_text("{}")
    convert_checkpoint(**SWIN, output_dir=output, overwrite=True)
    assert not (output / "notes.txt").exists()
    assert (output / "model.safetensors").exists()


@pytest.mark.parametrize("existing", [False, True])
def test_failures_leave_nothing_half_written(tmp_path, monkeypatch, existing):
    output = tmp_path / "out"
    if existing:
        output.mkdir()
        (output / "config.json").write_text("{}")

    rename = Path.rename

    def fail_to_write(*args):
        raise OSError("disk full")

    def fail_to_rename(path, target):
        if path.name == "new":
            raise OSError("disk full")
        return rename(path, target)

    for target, replacement in (
        ("vita_hf.conversion.checkpoint.model_card", fail_to_write),
        ("pathlib.Path.rename", fail_to_rename),
    ):
        with monkeypatch.context() as patch, pytest.raises(OSError, match=r"disk full"):
            patch.setattr(target, replacement)
            convert_checkpoint(**SWIN, output_dir=output, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == (["out"] if existing else [])
        if existing:
            assert [path.name for path in output.iterdir()] == ["config.json"]


def test_model_card_of_a_recipe():
    config = config_from_recipe(load_recipe("ytvis2021-swinl"))
    text = model_card(config, "ytvis2021", "ytvis2021-swinl")
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "image-segmentation", "apache-2.0")
    assert data.tags[:2] == ["video-instance-segmentation", "vita"]
    assert data.datasets == ["coco", "youtube-vis-2021"]
    assert data.eval_results is None  # metadata would present the authors' numbers as these files'
    assert "# VITA, Swin-L, YouTube-VIS 2021" in text
    assert "| 57.5 | 80.6 | 61.0 | 47.7 | 62.6 |" in text
    assert "These are the authors' numbers: nothing was measured with this package" in text
    assert "top_k=10" in text


def test_model_card_without_published_numbers():
    for recipe in ("ytvis2019-r101", "coco-r50", "ovis-r101"):
        settings_ = load_recipe(recipe)
        text = model_card(config_from_recipe(settings_), settings_["data"]["dataset"], recipe)
        assert "Results" not in text
        assert f"top_k={settings_['evaluation']['top_k']}" in text
    text = model_card(config_from_detectron2(settings("swin")))
    assert "Results" not in text
    assert ModelCard(text).data.datasets is None


def test_code_in_the_model_card_runs(tmp_path, capsys):
    output = convert_checkpoint(**SWIN, output_dir=tmp_path / "model")
    frames = tmp_path / "clip"
    frames.mkdir()
    for t in range(3):
        Image.new("RGB", (64, 48), (40 * t, 90, 200)).save(frames / f"{t}.png")
    codes = re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), re.S)
    results = []
    for code in codes:
        replacements = {"path/to/this/directory": output, "clip.mp4": frames, "overlay.mp4": tmp_path / "overlay.mp4"}
        for example, path in (replacements | {"results.json": tmp_path / "results.json"}).items():
            code = code.replace(f'"{example}"', f'"{path}"')
        names = {}
        exec(compile(code, "card", "exec"), names)
        results.append((names["result"], capsys.readouterr().out.splitlines()))
    (tracks, _), (pairs, lines) = results
    assert VideoInstances.from_json(tmp_path / "results.json").to_json() == tracks.to_json()
    assert VideoReader(tmp_path / "overlay.mp4").count_frames() == tracks.num_frames == 3
    assert len(pairs) == len(lines) == 10
    assert all(re.fullmatch(r"LABEL_\d 0\.\d+ \[\d+, \d+, \d+\]", line) for line in lines)


# Command line


@pytest.fixture(params=["vita-hf convert", "scripts/convert_checkpoint.py"])
def run_script(request, monkeypatch):
    def run(*arguments) -> None:
        if request.param == "vita-hf convert":
            cli.main(["convert", *map(str, arguments)])
        else:
            monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, arguments)])
            runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def test_script(tmp_path, run_script, capsys):
    arguments = [SWIN["weights"], "--config", SWIN["config_file"], "--output", tmp_path / "out"]
    run_script(*arguments)
    assert capsys.readouterr().out == f"Written: {tmp_path / 'out'}\n"
    with pytest.raises(SystemExit) as stop:
        run_script(*arguments)
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"error: output directory is not empty: {tmp_path / 'out'}\n"
    run_script(*arguments, "--overwrite")


def test_script_errors(tmp_path, run_script, capsys):
    for arguments, message in [
        (["gone.pth", "--recipe", "ovis-r50"], "error: no such checkpoint: gone.pth\n"),
        ([SWIN["weights"], "--recipe", "ovis"], "error: recipe: expected one of "),
        ([SWIN["weights"], "--config", "gone.yaml"], "error: no such config file: "),
    ]:
        with pytest.raises(SystemExit) as stop:
            run_script(*arguments, "--output", tmp_path / "out")
        assert stop.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith(message)
        assert error.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        run_script("--help")
    assert stop.value.code == 0
    assert "--recipe ytvis2019-r50 --output vita-r50-ytvis2019" in capsys.readouterr().out

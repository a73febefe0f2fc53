"""detectron2 configs → configurations of models and processors."""

import re
from pathlib import Path

import pytest
from transformers import SwinConfig, TimmBackboneConfig

import vita_hf
from helpers.detectron2 import settings
from vita_hf.backbones import VitaResNetConfig
from vita_hf.conversion.detectron2_config import config_from_detectron2, processor_from_detectron2, read_detectron2_yaml
from vita_hf.recipes import config_from_recipe, load_recipe


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


@pytest.mark.parametrize(
    "num_classes, dataset, label, top_k",
    [
        (40, "ytvis_2019_val", "hand", 10),
        (40, "ytvis_2021_val", "earless_seal", 10),
        (25, "ovis_val", "Giraffe", 20),
        (80, "coco_2017_val", "fire hydrant", 100),
        (40, "my_own_val", "LABEL_10", 10),
        (41, "ytvis_2019_val", "LABEL_10", 10),
    ],
)
def test_labels_and_top_k_of_datasets(num_classes, dataset, label, top_k):
    cfg = settings(
        MODEL__SEM_SEG_HEAD__NUM_CLASSES=num_classes,
        DATASETS__TEST=[dataset],
        DATASETS__TRAIN=["coco2ytvis2019_train"],
    )
    config = config_from_detectron2(cfg)
    assert config.id2label[10] == label
    assert config.label2id[label] == 10
    assert config.num_labels == num_classes
    assert config.evaluation_top_k == top_k


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
        "vita_hf cannot represent the network of this config:\n"
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
    assert processor_from_detectron2(cfg).to_dict() == vita_hf.VitaVideoProcessor(**recipe.processor).to_dict()


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


# 0.5 kB that stand for billions of values
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefghi", "bcdefghij")
)


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, ".*its aliases stand for more than 100000 values"),
        ("_BASE_: [[a.yaml]]", r"_BASE_: expected a path or a list of paths, got \['a.yaml'\]"),
        ("_BASE_: null", "_BASE_: expected a path or a list of paths, got None"),
        ("[1, 2]: 3", "not a YAML file of plain settings: "),
        ("null: {a: 1}", "not a YAML file of plain settings: "),
        ("a: '${b'", "not a YAML file of plain settings: "),
        ("a: " + "[" * 400 + "]" * 400, "not a YAML file of plain settings: .{0,200}$"),
        ("a: 2020-01-01", "not a YAML file of plain settings: "),
    ],
)
def test_hostile_configs(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"main\.yaml: {message}"):
        read_detectron2_yaml(write(tmp_path, main=text))


@pytest.mark.parametrize("value", ["(" * 5000, "-" * 5000 + "1", "[" * 5000 + "]" * 5000, "9" * 5000])
def test_hostile_literals(value):
    with pytest.raises(ValueError, match=r"MODEL.VITA.NHEADS: expected a value like 8, got "):
        config_from_detectron2(settings(MODEL__VITA__NHEADS=value))


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

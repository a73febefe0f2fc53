"""detectron2 configs of the original implementation → configurations of this package.

Settings and defaults are those of `sukjunhwang/VITA` (commit 59c24ad), of its copy of Mask2Former and of detectron2.
"""

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import StrictDataclassError
from omegaconf import OmegaConf
from transformers import PreTrainedConfig, SwinConfig, TimmBackboneConfig

from ..backbones import VitaResNetConfig
from ..configuration_vita import VitaConfig
from ..data.categories import CATEGORIES, id2label
from ..image_processing_vita import VitaVideoProcessor
from ..recipes import load_recipe

_DEFAULTS = yaml.safe_load((Path(__file__).parent / "detectron2_defaults.yaml").read_text())

_STAGES = ["res2", "res3", "res4", "res5"]

# Settings that must have these values, because this package has no counterpart for a network with others.
_REQUIRED: dict[str, Any] = {
    "INPUT.FORMAT": "RGB",
    "MODEL.META_ARCHITECTURE": "Vita",
    "MODEL.MASK_FORMER.DROPOUT": 0.0,
    "MODEL.MASK_FORMER.PRE_NORM": False,
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "VitaMultiScaleMaskedTransformerDecoder",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": _STAGES[1:],
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": _STAGES,
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    "MODEL.VITA.ENFORCE_INPUT_PROJ": True,
    "MODEL.VITA.PRE_NORM": False,
    "MODEL.VITA.SIM_USE_CLIP": True,
}
_REQUIRED_OF_BACKBONE: dict[str, dict[str, Any]] = {
    "build_resnet_backbone": {
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, False],
        "MODEL.RESNETS.NORM": "FrozenBN",
        "MODEL.RESNETS.OUT_FEATURES": _STAGES,
        "MODEL.RESNETS.RES5_DILATION": 1,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    },
    "D2SwinTransformer": {
        "MODEL.SWIN.APE": False,
        "MODEL.SWIN.OUT_FEATURES": _STAGES,
        "MODEL.SWIN.PATCH_NORM": True,
        "MODEL.SWIN.PATCH_SIZE": 4,
        "MODEL.SWIN.QK_SCALE": None,
    },
}

# Field of VitaConfig ← setting. In both packages, the video part has the detector's width and loss weights.
_FIELDS: dict[str, str] = {
    "class_weight": "MODEL.MASK_FORMER.CLASS_WEIGHT",
    "decoder_layers": "MODEL.MASK_FORMER.DEC_LAYERS",
    "use_auxiliary_loss": "MODEL.MASK_FORMER.DEEP_SUPERVISION",
    "dice_weight": "MODEL.MASK_FORMER.DICE_WEIGHT",
    "dim_feedforward": "MODEL.MASK_FORMER.DIM_FEEDFORWARD",
    "enforce_input_projection": "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ",
    "hidden_dim": "MODEL.MASK_FORMER.HIDDEN_DIM",
    "importance_sample_ratio": "MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO",
    "mask_weight": "MODEL.MASK_FORMER.MASK_WEIGHT",
    "num_attention_heads": "MODEL.MASK_FORMER.NHEADS",
    "no_object_weight": "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT",
    "num_queries": "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES",
    "oversample_ratio": "MODEL.MASK_FORMER.OVERSAMPLE_RATIO",
    "train_num_points": "MODEL.MASK_FORMER.TRAIN_NUM_POINTS",
    "feature_size": "MODEL.SEM_SEG_HEAD.CONVS_DIM",
    "mask_feature_size": "MODEL.SEM_SEG_HEAD.MASK_DIM",
    "encoder_layers": "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS",
    "object_decoder_layers": "MODEL.VITA.DEC_LAYERS",
    "use_video_auxiliary_loss": "MODEL.VITA.DEEP_SUPERVISION",
    "video_dim_feedforward": "MODEL.VITA.DIM_FEEDFORWARD",
    "object_encoder_layers": "MODEL.VITA.ENC_LAYERS",
    "object_encoder_window_size": "MODEL.VITA.ENC_WINDOW_SIZE",
    "freeze_detector": "MODEL.VITA.FREEZE_DETECTOR",
    "num_last_layers": "MODEL.VITA.LAST_LAYER_NUM",
    "video_num_attention_heads": "MODEL.VITA.NHEADS",
    "video_no_object_weight": "MODEL.VITA.NO_OBJECT_WEIGHT",
    "num_video_queries": "MODEL.VITA.NUM_OBJECT_QUERIES",
    "similarity_weight": "MODEL.VITA.SIM_WEIGHT",
    "detector_chunk_size": "MODEL.VITA.TEST_RUN_CHUNK_SIZE",
}

# The same for the configuration of a ResNet of unusual widths, and of a Swin.
_RESNET_WIDTHS: dict[str, str] = {
    "stem_channels": "MODEL.RESNETS.STEM_OUT_CHANNELS",
    "res2_channels": "MODEL.RESNETS.RES2_OUT_CHANNELS",
    "width_per_group": "MODEL.RESNETS.WIDTH_PER_GROUP",
    "num_groups": "MODEL.RESNETS.NUM_GROUPS",
}
_SWIN_FIELDS: dict[str, str] = {
    "image_size": "MODEL.SWIN.PRETRAIN_IMG_SIZE",
    "embed_dim": "MODEL.SWIN.EMBED_DIM",
    "depths": "MODEL.SWIN.DEPTHS",
    "num_heads": "MODEL.SWIN.NUM_HEADS",
    "window_size": "MODEL.SWIN.WINDOW_SIZE",
    "mlp_ratio": "MODEL.SWIN.MLP_RATIO",
    "qkv_bias": "MODEL.SWIN.QKV_BIAS",
    "hidden_dropout_prob": "MODEL.SWIN.DROP_RATE",
    "attention_probs_dropout_prob": "MODEL.SWIN.ATTN_DROP_RATE",
    "drop_path_rate": "MODEL.SWIN.DROP_PATH_RATE",
}

# Prefix of a registered dataset ("ytvis_2019_val") → dataset. The "coco2…" ones are COCO images with other labels.
_DATASET_PREFIXES = {"ytvis_2019": "ytvis2019", "ytvis_2021": "ytvis2021", "ovis": "ovis", "coco_2017": "coco"}


class _Detectron2Loader(yaml.SafeLoader):
    """Loads plain data, and tuples as lists: detectron2 writes them with a Python tag. Refuses other Python tags."""


_Detectron2Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def read_detectron2_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """
    Read a detectron2 YAML file, merged over the files that it names under `_BASE_`.

    Args:
        path: The file. `_BASE_` is a path or a list of paths, relative to the file that names them, and may chain.

    Returns:
        The settings in the files as nested dictionaries, without defaults.

    Raises:
        FileNotFoundError: if the file or one of its bases does not exist.
        ValueError: if a file is not a YAML mapping, holds Python objects other than tuples, or includes itself.
    """
    return _read_yaml(Path(path), ())


def _read_yaml(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    path = path.expanduser().resolve()
    if path in including:
        raise ValueError(f"{path}: includes itself through _BASE_")
    if not path.is_file():
        named = f", named as _BASE_ in {including[-1]}" if including else ""
        raise FileNotFoundError(f"no such config file: {path}{named}")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_Detectron2Loader)  # a subclass of SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file of plain settings: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected a mapping of settings, got {type(settings).__name__}")
    bases = settings.pop("_BASE_", [])
    paths = [path.parent / Path(str(base)).expanduser() for base in (bases if isinstance(bases, list) else [bases])]
    layers = [*(_read_yaml(base, (*including, path)) for base in paths), settings]
    merged: Any = OmegaConf.to_container(OmegaConf.merge(*layers))
    return merged


def _setting(cfg: Mapping[str, Any], name: str) -> Any:
    """Return a setting such as "MODEL.VITA.NHEADS" or its default, which also gives its type. Tuples become lists."""
    value, default = cfg, _DEFAULTS
    for part in name.split("."):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name}: expected a mapping above it, got {value!r}")
        default = default[part]
        value = value.get(part, default)
    if isinstance(value, str):
        # detectron2 evaluates strings that are Python literals: `(360, 480)`, `1e-4`.
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pass
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"{name}: expected a value like {default!r}, got {value!r}")
    return value


def config_from_detectron2(cfg: Mapping[str, Any]) -> VitaConfig:
    """
    Build the configuration of the model that a detectron2 config describes.

    Settings of training data, schedule and optimizer (`BACKBONE.FREEZE_AT` among them) are ignored.

    Args:
        cfg: The settings as nested dictionaries, for example from [`read_detectron2_yaml`]. Missing ones have the
            default of detectron2, Mask2Former or VITA.

    Returns:
        The configuration. If `DATASETS.TEST` or `DATASETS.TRAIN` names a known dataset with this number of classes, it
        has the names of the dataset's categories and the number of predictions that its benchmark scores.

    Raises:
        ValueError: if this package has no counterpart for the values of some settings (the message names all of them),
            or if a value has another type than its default.
    """
    backbone = _setting(cfg, "MODEL.BACKBONE.NAME")
    refused = []
    if backbone not in _REQUIRED_OF_BACKBONE:
        refused.append(f"MODEL.BACKBONE.NAME: expected one of {', '.join(_REQUIRED_OF_BACKBONE)}, got {backbone!r}")
    for name, expected in {**_REQUIRED, **_REQUIRED_OF_BACKBONE.get(backbone, {})}.items():
        if (got := _setting(cfg, name)) != expected:
            refused.append(f"{name}: expected {expected!r}, got {got!r}")
    width, video_width = _setting(cfg, "MODEL.MASK_FORMER.HIDDEN_DIM"), _setting(cfg, "MODEL.VITA.HIDDEN_DIM")
    if video_width != width:
        refused.append(f"MODEL.VITA.HIDDEN_DIM: expected MODEL.MASK_FORMER.HIDDEN_DIM = {width!r}, got {video_width!r}")
    if refused:
        raise ValueError("vita_hf cannot represent the network of this config:\n  " + "\n  ".join(refused))

    fields = {field: _setting(cfg, name) for field, name in _FIELDS.items()}
    if dataset := dataset_from_detectron2(cfg):
        names = id2label(dataset)
        fields["id2label"], fields["label2id"] = names, {name: index for index, name in names.items()}
        fields["evaluation_top_k"] = load_recipe(f"{dataset}-r50").evaluation.top_k
    else:
        fields["num_labels"] = _setting(cfg, "MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    try:
        return VitaConfig(
            backbone_config=_resnet_config(cfg) if backbone == "build_resnet_backbone" else _swin_config(cfg),
            use_similarity_head=fields["similarity_weight"] > 0,
            encoder_feedforward_dim=1024,  # fixed in the original
            **fields,
        )
    except StrictDataclassError as error:
        raise ValueError(f"the config describes an impossible network: {error.__cause__ or error}") from error


def dataset_from_detectron2(cfg: Mapping[str, Any]) -> str | None:
    """Return the dataset of [`vita_hf.data.categories`] whose categories the model predicts, or None if unknown."""
    num_classes = _setting(cfg, "MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    for name in [*_setting(cfg, "DATASETS.TEST"), *_setting(cfg, "DATASETS.TRAIN")]:
        for prefix, dataset in _DATASET_PREFIXES.items():
            if str(name).startswith(prefix) and len(CATEGORIES[dataset]) == num_classes:
                return dataset
    return None


def _resnet_config(cfg: Mapping[str, Any]) -> PreTrainedConfig:
    depth = _setting(cfg, "MODEL.RESNETS.DEPTH")
    if depth not in (50, 101, 152):
        raise ValueError(f"MODEL.RESNETS.DEPTH: expected 50, 101 or 152, got {depth!r}")
    common: dict[str, Any] = {"out_indices": [1, 2, 3, 4], "freeze_batch_norm_2d": True}
    if all(_setting(cfg, name) == _setting({}, name) for name in _RESNET_WIDTHS.values()):
        return TimmBackboneConfig(backbone=f"resnet{depth}", **common)
    widths = {field: _setting(cfg, name) for field, name in _RESNET_WIDTHS.items()}
    return VitaResNetConfig(depth=depth, **widths, **common)


def _swin_config(cfg: Mapping[str, Any]) -> SwinConfig:
    fields = {field: _setting(cfg, name) for field, name in _SWIN_FIELDS.items()}
    if len(fields["depths"]) != 4:
        raise ValueError(f"MODEL.SWIN.DEPTHS: expected four stages, got {fields['depths']!r}")
    fields["out_features"] = ["stage1", "stage2", "stage3", "stage4"]
    return SwinConfig(**fields)


def processor_from_detectron2(cfg: Mapping[str, Any]) -> VitaVideoProcessor:
    """
    Build the processor that prepares videos as a detectron2 config describes.

    Args:
        cfg: The settings as nested dictionaries, as for [`config_from_detectron2`].

    Raises:
        ValueError: if the frames are not RGB, or the size divisor is not positive.
    """
    if (channels := _setting(cfg, "INPUT.FORMAT")) != "RGB":
        raise ValueError(f"INPUT.FORMAT: expected 'RGB', got {channels!r}")
    divisor = _setting(cfg, "MODEL.MASK_FORMER.SIZE_DIVISIBILITY")
    if divisor < 1:
        raise ValueError(f"MODEL.MASK_FORMER.SIZE_DIVISIBILITY: expected at least 1, got {divisor!r}")
    return VitaVideoProcessor(
        size={
            "shortest_edge": _setting(cfg, "INPUT.MIN_SIZE_TEST"),
            "longest_edge": _setting(cfg, "INPUT.MAX_SIZE_TEST"),
        },
        size_divisor=divisor,
        # detectron2 normalizes values from 0 to 255, the processor from 0 to 1. Rounded: 123.675 / 255 becomes 0.485.
        image_mean=[round(value / 255, 10) for value in _setting(cfg, "MODEL.PIXEL_MEAN")],
        image_std=[round(value / 255, 10) for value in _setting(cfg, "MODEL.PIXEL_STD")],
    )


__all__ = [
    "config_from_detectron2",
    "dataset_from_detectron2",
    "processor_from_detectron2",
    "read_detectron2_yaml",
]

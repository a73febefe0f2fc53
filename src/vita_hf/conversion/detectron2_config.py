"""detectron2 configs of the original implementation → configurations of this package.

Settings and defaults are those of `sukjunhwang/VITA` (commit 59c24ad), of its copy of Mask2Former and of detectron2.
"""

import ast
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import PreTrainedConfig, SwinConfig, TimmBackboneConfig

from ..backbones import VitaResNetConfig
from ..configuration_vita import VitaConfig, config_errors
from ..data.categories import CATEGORIES, id2label
from ..image_processing_vita import VitaVideoProcessor
from ..ops.rle import shorten
from ..recipes import load_recipe
from ..recipes.plain_yaml import load_yaml

_SETTINGS = yaml.safe_load((Path(__file__).parent / "detectron2_settings.yaml").read_text("utf-8"))

# Prefix of a registered dataset ("ytvis_2019_val") → dataset. The "coco2…" ones are COCO images with other labels.
_DATASET_PREFIXES = {"ytvis_2019": "ytvis2019", "ytvis_2021": "ytvis2021", "ovis": "ovis", "coco_2017": "coco"}


class _Detectron2Loader(yaml.SafeLoader):
    """Loads plain data, and tuples as lists, which detectron2 writes with a Python tag. Refuses other Python tags."""


_Detectron2Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def read_detectron2_yaml(path: str | os.PathLike, including: tuple[Path, ...] = ()) -> dict[str, Any]:
    """
    Read the settings in a detectron2 YAML file, merged over the files that it names under `_BASE_`.

    `_BASE_` is a path or a list of paths, relative to the file that names them, and may chain. `including` holds the
    files whose `_BASE_` led to this one.

    Raises:
        FileNotFoundError: if the file or one of its bases does not exist.
        ValueError: if a file is not a YAML mapping, holds Python objects other than tuples, or includes itself.
    """
    path = Path(os.path.expanduser(path)).resolve()
    if path in including:
        raise ValueError(f"{path}: includes itself through _BASE_")
    if not path.is_file():
        named = f", named as _BASE_ in {including[-1]}" if including else ""
        raise FileNotFoundError(f"no such config file: {path}{named}")
    try:
        settings = load_yaml(path.read_text(encoding="utf-8"), _Detectron2Loader)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected a mapping of settings, got {type(settings).__name__}")
    bases = settings.pop("_BASE_", [])
    layers = []
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or "\0" in base:
            raise ValueError(f"{path}: _BASE_: expected a path or a list of paths, got {shorten(base)}")
        layers.append(read_detectron2_yaml(path.parent / os.path.expanduser(base), (*including, path)))
    try:
        merged: Any = OmegaConf.to_container(OmegaConf.merge(*layers, settings))
    except (OmegaConfBaseException, RecursionError, TypeError) as error:
        reason = str(error).partition("\n")[0]  # the rest shows the whole object
        raise ValueError(f"{path}: not a YAML file of plain settings: {reason}") from None
    return merged


def _setting(cfg: Mapping[str, Any], name: str) -> Any:
    """Return a setting such as "MODEL.VITA.NHEADS" or its default, which also gives its type. Tuples become lists."""
    value, default = cfg, _SETTINGS["defaults"]
    for part in name.split("."):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name}: expected a mapping above it, got {shorten(value)}")
        default = default[part]
        value = value.get(part, default)
    if isinstance(value, str):
        with suppress(
            ValueError, SyntaxError, MemoryError, RecursionError
        ):  # detectron2 evaluates Python literals: `(360, 480)`, `1e-4`
            value = ast.literal_eval(value)
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"{name}: expected a value like {default!r}, got {shorten(value)}")
    return value


def _fields(cfg: Mapping[str, Any], table: str) -> dict[str, Any]:
    return {field: _setting(cfg, name) for field, name in _SETTINGS[table].items()}


def config_from_detectron2(cfg: Mapping[str, Any]) -> VitaConfig:
    """
    Build the configuration of the model that a detectron2 config describes.

    Settings of training data, schedule and optimizer (also `BACKBONE.FREEZE_AT`) are ignored.

    Args:
        cfg: The settings as nested dictionaries, for example from [`read_detectron2_yaml`]. Missing ones have the
            default of detectron2, Mask2Former or VITA.

    Raises:
        ValueError: if this package has no counterpart for the values of some settings (the message names all of them),
            or if a value has another type than its default.
    """
    backbone = _setting(cfg, "MODEL.BACKBONE.NAME")
    refused = []
    backbones = _SETTINGS["required_of_backbone"]
    if backbone not in backbones:
        refused.append(f"MODEL.BACKBONE.NAME: expected one of {', '.join(backbones)}, got {shorten(backbone)}")
    required = {**_SETTINGS["required"], **backbones.get(backbone, {})}
    required["MODEL.VITA.HIDDEN_DIM"] = _setting(cfg, "MODEL.MASK_FORMER.HIDDEN_DIM")  # one width for both parts
    for name, expected in required.items():
        if (got := _setting(cfg, name)) != expected:
            refused.append(f"{name}: expected {expected!r}, got {shorten(got)}")
    if refused:
        raise ValueError("vita_hf cannot represent the network of this config:\n  " + "\n  ".join(refused))

    fields = _fields(cfg, "vita_fields")
    if dataset := dataset_from_detectron2(cfg):
        names = id2label(dataset)
        fields["id2label"], fields["label2id"] = names, {name: index for index, name in names.items()}
        fields["evaluation_top_k"] = load_recipe(f"{dataset}-r50").evaluation.top_k
    else:
        fields["num_labels"] = _setting(cfg, "MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    with config_errors("the config describes an impossible network"):
        return VitaConfig(
            backbone_config=_resnet_config(cfg) if backbone == "build_resnet_backbone" else _swin_config(cfg),
            use_similarity_head=fields["similarity_weight"] > 0,
            encoder_feedforward_dim=1024,  # fixed in the original
            **fields,
        )


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
        raise ValueError(f"MODEL.RESNETS.DEPTH: expected 50, 101 or 152, got {shorten(depth)}")
    common: dict[str, Any] = {"out_indices": [1, 2, 3, 4], "freeze_batch_norm_2d": True}
    widths = _fields(cfg, "resnet_fields")
    if widths == _fields({}, "resnet_fields"):
        return TimmBackboneConfig(backbone=f"resnet{depth}", **common)
    return VitaResNetConfig(depth=depth, **widths, **common)


def _swin_config(cfg: Mapping[str, Any]) -> SwinConfig:
    fields = _fields(cfg, "swin_fields")
    depths = fields["depths"]
    if len(depths) != 4 or not all(type(depth) is int and 1 <= depth <= 1000 for depth in depths):
        raise ValueError(f"MODEL.SWIN.DEPTHS: expected four stages of 1 to 1000 layers, got {shorten(depths)}")
    fields["out_features"] = ["stage1", "stage2", "stage3", "stage4"]
    return SwinConfig(**fields)


def processor_from_detectron2(cfg: Mapping[str, Any]) -> VitaVideoProcessor:
    """
    Build the processor that prepares videos as a detectron2 config describes; see [`config_from_detectron2`].

    Raises:
        ValueError: if the frames are not RGB, or the size divisor is not positive.
    """
    if (channels := _setting(cfg, "INPUT.FORMAT")) != "RGB":
        raise ValueError(f"INPUT.FORMAT: expected 'RGB', got {shorten(channels)}")
    divisor = _setting(cfg, "MODEL.MASK_FORMER.SIZE_DIVISIBILITY")
    if divisor < 1:
        raise ValueError(f"MODEL.MASK_FORMER.SIZE_DIVISIBILITY: expected at least 1, got {shorten(divisor)}")
    shortest, longest = _setting(cfg, "INPUT.MIN_SIZE_TEST"), _setting(cfg, "INPUT.MAX_SIZE_TEST")
    return VitaVideoProcessor(
        size={"shortest_edge": shortest, "longest_edge": longest},
        size_divisor=divisor,
        # detectron2 normalizes values from 0 to 255, the processor from 0 to 1. Rounded: 123.675 / 255 becomes 0.485.
        image_mean=[round(value / 255, 10) for value in _setting(cfg, "MODEL.PIXEL_MEAN")],
        image_std=[round(value / 255, 10) for value in _setting(cfg, "MODEL.PIXEL_STD")],
    )

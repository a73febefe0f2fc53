"""Build a model with its initial weights."""

import logging
from typing import Any

import timm
import torch
from transformers import AutoConfig, TimmBackbone, TimmBackboneConfig

from ..configuration_vita import VitaConfig, config_errors
from ..inference.loading import first_line, no_such_model
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..text import counted

logger = logging.getLogger(__name__)

_HEADS = ("class_predictor.weight", "class_predictor.bias")
# Fields that determine the shapes of parameters. A checkpoint overrides the recipe in these.
# fmt: off
_DETECTOR_SHAPES = frozenset(
    {
        "backbone_config", "num_queries", "feature_size", "mask_feature_size", "hidden_dim", "encoder_layers",
        "encoder_feedforward_dim", "decoder_layers", "dim_feedforward", "num_attention_heads",
    }
)
_VIDEO_SHAPES = frozenset(
    {
        "num_video_queries", "object_encoder_layers", "object_decoder_layers", "video_num_attention_heads",
        "video_dim_feedforward", "use_similarity_head",
    }
)
# fmt: on


def build_model(fields: dict[str, Any], id2label: dict[int, str], init: str) -> VitaForVideoInstanceSegmentation:
    """
    Build the model to train, in float32.

    Args:
        fields: Fields of [`VitaConfig`]: the `model` section of a recipe.
        id2label: The classes of the training data.
        init: "scratch"; "backbone" for a backbone as timm or transformers trained it; or a directory or Hub id of a
            VITA model (for example a converted COCO checkpoint) or of a Mask2Former. The sizes of such a model replace
            those in `fields`, and its class heads are initialized again if its classes differ.

    Raises:
        ValueError: if the checkpoint is of another model type, or if more than its class heads does not fit.
        OSError: if there is no such checkpoint.
    """
    labels = {"id2label": dict(id2label), "label2id": {name: label for label, name in id2label.items()}}
    if init not in ("scratch", "backbone"):
        return _from_checkpoint(init, fields, labels)
    model = VitaForVideoInstanceSegmentation(_make_config({**fields, **labels}))
    if init == "backbone":
        load_pretrained_backbone(model)
    return model


def pretrained_name(backbone_config: Any) -> str:
    """Name the weights that `init: backbone` loads: a timm model, or a Hub id for other backbones."""
    if not isinstance(backbone_config, TimmBackboneConfig):
        return getattr(backbone_config, "_name_or_path", "")
    name = str(backbone_config.backbone)
    # The ResNets of the released models start from torchvision's weights, which are not timm's default.
    return f"{name}.tv_in1k" if name in ("resnet50", "resnet101") else name


def load_pretrained_backbone(model: VitaForVideoInstanceSegmentation) -> None:
    """
    Load pretrained weights into the backbone of a model: those of timm for a timm backbone, otherwise those of the
    transformers checkpoint that `_name_or_path` of the backbone config names.

    Raises:
        ValueError: if the config names no checkpoint, or the checkpoint lacks tensors.
    """
    encoder = model.model.pixel_level_module.encoder
    config: Any = model.config.backbone_config
    source = pretrained_name(config)
    if isinstance(encoder, TimmBackbone):
        pretrained = timm.create_model(source, pretrained=True, features_only=True, out_indices=config.out_indices)
        missing = encoder._backbone.load_state_dict(pretrained.state_dict(), strict=False).missing_keys
    elif source:
        pretrained, info = type(encoder).from_pretrained(
            source, config=config, output_loading_info=True, dtype=torch.float32
        )
        # Classification checkpoints have no norms of the outputs.
        missing = sorted(name for name in info["missing_keys"] if "hidden_states_norms" not in name)
        encoder.load_state_dict(pretrained.state_dict())
    else:
        raise ValueError("init: expected _name_or_path in the recipe's backbone_config, to name the weights to load")
    if missing:
        raise ValueError(f"{source} lacks {len(missing)} of the backbone's tensors, for example {missing[0]}")
    logger.info("backbone: pretrained weights of %s", source)


def _make_config(fields: dict[str, Any]) -> VitaConfig:
    with config_errors("the recipe's model section"):
        return VitaConfig.from_dict(fields)


def _from_checkpoint(source: str, fields: dict[str, Any], labels: dict[str, Any]) -> VitaForVideoInstanceSegmentation:
    try:
        with config_errors(f"init: {source}"):
            checkpoint = AutoConfig.from_pretrained(source)
    except OSError as error:
        raise OSError(f"init: {no_such_model(source, error)}") from error
    except Exception as error:  # a broken config.json makes transformers raise almost anything
        raise ValueError(f"init: the configuration of {source} cannot be loaded: {first_line(error)}") from error
    if checkpoint.model_type not in ("vita", "mask2former"):
        raise ValueError(f"init: expected a VITA or Mask2Former model, {source} is of type {checkpoint.model_type!r}")
    is_vita = checkpoint.model_type == "vita"
    shapes = _DETECTOR_SHAPES | _VIDEO_SHAPES if is_vita else _DETECTOR_SHAPES
    changes = {name: value for name, value in fields.items() if name not in shapes}
    config = _make_config({**checkpoint.to_dict(), **changes, **labels})
    model, info = VitaForVideoInstanceSegmentation.from_pretrained(
        source, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
    )
    mismatched = {entry[0] for entry in info["mismatched_keys"]}
    wrong = sorted(name for name in mismatched if not name.endswith(_HEADS))
    if wrong:
        raise ValueError(
            f"{source}: {counted(len(wrong), 'tensor')} of other shapes than the model's, for example {wrong[0]}"
        )
    missing = sorted(info["missing_keys"] - mismatched)
    if is_vita and missing:
        raise ValueError(f"{source} lacks {counted(len(missing), 'tensor')}, for example {missing[0]}")
    if not is_vita:
        tensors = counted(len(missing), "tensor")
        logger.info("%s is a detector: the video part starts from scratch (%s)", source, tensors)
    before, now = (list((labeled.id2label or {}).values()) for labeled in (checkpoint, config))
    if before != now:
        if not mismatched:  # equally many classes
            model.class_predictor.reset_parameters()
            model.video_class_predictor.reset_parameters()
        classes = f"{len(before)} classes ({before[0]}, …), the training data has {len(now)} ({now[0]}, …)"
        logger.warning("class heads initialized again: %s has %s", source, classes)
    return model

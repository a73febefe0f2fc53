"""Where a training's weights come from."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import timm
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, TimmBackbone, TimmBackboneConfig

from ..configuration_vita import VitaConfig
from ..modeling_vita import VitaForVideoInstanceSegmentation

logger = logging.getLogger(__name__)

_HEADS = ("class_predictor.weight", "class_predictor.bias")
# Fields of a recipe that decide on parameters' shapes; with a checkpoint they are the checkpoint's.
_SHAPES = frozenset(
    {
        *("backbone_config", "num_queries", "feature_size", "mask_feature_size", "hidden_dim", "encoder_layers"),
        *("encoder_feedforward_dim", "decoder_layers", "dim_feedforward", "num_attention_heads"),
    }
)
_VIDEO_SHAPES = frozenset(
    {
        *("num_video_queries", "object_encoder_layers", "object_decoder_layers", "video_num_attention_heads"),
        *("video_dim_feedforward", "use_similarity_head"),
    }
)


def build_model(fields: dict[str, Any], id2label: dict[int, str], init: str) -> VitaForVideoInstanceSegmentation:
    """
    A model to train, in float32.

    Args:
        fields: a recipe's `model` section.
        id2label: the training data's classes.
        init: "scratch"; "backbone", with a backbone as timm or transformers trained it; or a directory or Hub id of a
            VITA model (a converted official COCO checkpoint, say) or of a Mask2Former, whose sizes then replace the
            recipe's. Class heads are made anew where the classes differ.

    Raises:
        ValueError: the checkpoint is of another kind, or more than its class heads does not fit.
        OSError: no such checkpoint.
    """
    labels = {"id2label": dict(id2label), "label2id": {name: label for label, name in id2label.items()}}
    if init not in ("scratch", "backbone"):
        return _from_checkpoint(init, fields, labels)
    with _naming_the_section():
        config = VitaConfig(**fields, **labels)
    model = VitaForVideoInstanceSegmentation(config)
    if init == "backbone":
        load_pretrained_backbone(model)
    return model


def pretrained_name(config: PreTrainedConfig) -> str:
    """Whose weights `init: backbone` loads, as a Hub id without its owner (timm) or as a whole one."""
    if isinstance(config, TimmBackboneConfig):
        # The released models' ResNets start from torchvision's weights; timm's default are others.
        return f"{config.backbone}.tv_in1k" if config.backbone in ("resnet50", "resnet101") else config.backbone
    return getattr(config, "_name_or_path", "")


def load_pretrained_backbone(model: VitaForVideoInstanceSegmentation) -> None:
    """
    Load the weights that a model's backbone was published with: timm's for timm backbones, else those of the
    transformers checkpoint that the backbone config's `_name_or_path` names.

    Raises:
        ValueError: no name, or weights that lack some.
    """
    encoder = model.model.pixel_level_module.encoder
    config = model.config.backbone_config
    if isinstance(encoder, TimmBackbone):
        name = pretrained_name(config)
        pretrained = timm.create_model(name, pretrained=True, features_only=True, out_indices=config.out_indices)
        missing = encoder._backbone.load_state_dict(pretrained.state_dict(), strict=False).missing_keys
        if missing:
            raise ValueError(f"timm's {name} lacks {len(missing)} of the backbone's tensors, for example {missing[0]}")
        logger.info("backbone: timm's weights of %s", name)
        return
    source = pretrained_name(config)
    if not source:
        raise ValueError("init: expected the recipe's backbone_config to say with _name_or_path whose weights to load")
    pretrained, info = type(encoder).from_pretrained(
        source, config=config, output_loading_info=True, dtype=torch.float32
    )
    # Output norms are not part of classification checkpoints.
    missing = sorted(name for name in info["missing_keys"] if "hidden_states_norms" not in name)
    if missing:
        raise ValueError(f"{source} lacks {len(missing)} of the backbone's tensors, for example {missing[0]}")
    encoder.load_state_dict(pretrained.state_dict())
    logger.info("backbone: weights of %s", source)


@contextlib.contextmanager
def _naming_the_section() -> Iterator[None]:
    try:
        yield
    except StrictDataclassError as error:
        raise ValueError(f"the recipe's model section: {error.__cause__ or error}") from error


def _from_checkpoint(source: str, fields: dict[str, Any], labels: dict[str, Any]) -> VitaForVideoInstanceSegmentation:
    try:
        found = AutoConfig.from_pretrained(source)
    except OSError as error:
        raise OSError(f"init: {source} is neither a model's directory nor one that the Hub gives: {error}") from error
    if found.model_type not in ("vita", "mask2former"):
        raise ValueError(f"init: expected a VITA or Mask2Former model, {source} is of type {found.model_type!r}")
    is_vita = found.model_type == "vita"
    keep = _SHAPES | (_VIDEO_SHAPES if is_vita else frozenset())
    changes = {name: value for name, value in fields.items() if name not in keep}
    with _naming_the_section():
        config = VitaConfig.from_dict({**found.to_dict(), **changes, **labels})
    model, info = VitaForVideoInstanceSegmentation.from_pretrained(
        source, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
    )
    mismatched = {entry[0] for entry in info["mismatched_keys"]}
    wrong = sorted(name for name in mismatched if not name.endswith(_HEADS))
    if wrong:
        raise ValueError(f"{source}: {len(wrong)} tensors have other shapes than the model's, for example {wrong[0]}")
    missing = sorted(info["missing_keys"] - mismatched)
    if is_vita and missing:
        raise ValueError(f"{source} lacks {len(missing)} tensors, for example {missing[0]}")
    if list(found.id2label.values()) != list(config.id2label.values()):
        if not mismatched:  # as many classes, but others
            _remake_class_heads(model)
        logger.warning(
            "class heads made anew: %s has %d classes (%s, …), the training data %d (%s, …)",
            source,
            len(found.id2label),
            found.id2label[0],
            config.num_labels,
            config.id2label[0],
        )
    if not is_vita:
        logger.info("%s is a detector: %d tensors of the video part start from nothing", source, len(missing))
    return model


def _remake_class_heads(model: VitaForVideoInstanceSegmentation) -> None:
    for head in (model.class_predictor, model.video_class_predictor):
        head.reset_parameters()


__all__ = ["build_model", "load_pretrained_backbone"]

"""Weights from scratch, from a backbone, from a Mask2Former and from a VITA model."""

import logging

import pytest
import torch
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    ResNetBackbone,
    ResNetConfig,
    SwinConfig,
)

from helpers.tiny_vita import NAMES, SIZES, SWIN, VIDEO, tiny
from vita_hf import VitaConfig
from vita_hf.recipes import list_recipes, load_recipe
from vita_hf.training.initialization import build_model, pretrained_name


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
    assert "class heads initialized again" in caplog.text and "7 classes" in caplog.text
    assert "is a detector" in caplog.text


def test_from_a_vita_model(tmp_path, caplog):
    first = tiny(object_encoder_window_size=0)
    first.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        same = build_model({"object_encoder_window_size": 3, "num_video_queries": 9}, NAMES, str(tmp_path))
    assert "initialized again" not in caplog.text
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
    with pytest.raises(ValueError, match="expected _name_or_path in the recipe's backbone_config"):
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

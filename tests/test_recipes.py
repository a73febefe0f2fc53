"""The shipped recipes against the facts of the released configurations."""

import pytest
from transformers import SwinConfig, TimmBackboneConfig

from vita_hf.recipes import config_from_recipe, list_recipes, load_recipe, merge

DATASETS = {  # number of classes, window size, top-k, test size with a ResNet and with Swin
    "coco": (80, 0, 100, 800, 800),
    "ytvis2019": (40, 6, 10, 360, 448),
    "ytvis2021": (40, 6, 10, 360, 448),
    "ovis": (25, 6, 20, 360, 448),
}


def test_there_is_one_per_dataset_and_backbone():
    assert list_recipes() == sorted(f"{d}-{b}" for d in DATASETS for b in ("r50", "r101", "swinl"))


@pytest.mark.parametrize("name", list_recipes())
def test_facts(name):
    dataset, backbone = name.split("-")
    num_labels, window, top_k, resnet_size, swin_size = DATASETS[dataset]
    recipe = load_recipe(name)
    assert set(recipe) == {"data", "model", "processor", "evaluation"}
    assert recipe["data"] == {"dataset": dataset}
    assert recipe["evaluation"] == {"top_k": top_k}
    size = swin_size if backbone == "swinl" else resnet_size
    assert recipe["processor"] == {"size": {"shortest_edge": size, "longest_edge": 1333}}

    config = config_from_recipe(recipe)
    assert config.num_labels == len(config.label2id) == num_labels
    assert config.object_encoder_window_size == window
    assert config.num_queries == (200 if backbone == "swinl" else 100)
    assert (config.num_video_queries, config.decoder_layers, config.encoder_layers) == (100, 10, 6)
    assert (config.object_encoder_layers, config.object_decoder_layers, config.num_last_layers) == (6, 3, 3)
    if backbone == "swinl":
        swin = config.backbone_config
        assert isinstance(swin, SwinConfig)
        assert (swin.embed_dim, swin.depths, swin.num_heads) == (192, [2, 2, 18, 2], [6, 12, 24, 48])
        assert (swin.window_size, swin.drop_path_rate, swin.image_size) == (12, 0.3, 384)
        assert swin.out_features == ["stage1", "stage2", "stage3", "stage4"]
    else:
        assert type(config.backbone_config) is TimmBackboneConfig
        assert config.backbone_config.backbone == {"r50": "resnet50", "r101": "resnet101"}[backbone]
        assert config.backbone_config.freeze_batch_norm_2d


def test_labels_follow_from_the_dataset():
    assert config_from_recipe(load_recipe("ovis-r50")).id2label[24] == "Vehical"


def test_unknown_recipe():
    with pytest.raises(ValueError, match=r"recipe: expected one of coco-r101, .*, got 'ytvis2019-r18'"):
        load_recipe("ytvis2019-r18")
    with pytest.raises(ValueError, match=r"recipe: expected one of"):
        load_recipe("base/r50")


def test_merge_is_deep_and_changes_nothing():
    base, override = {"a": {"x": 1, "y": [1, 2]}, "b": 1}, {"a": {"y": [3]}, "c": {"z": 0}}
    assert merge(base, override) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": {"z": 0}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1}

"""The shipped recipes against the facts of the released configurations."""

import pytest
from transformers import SwinConfig, TimmBackboneConfig

from vita_hf.data.clips.sampling import ClipSettings
from vita_hf.recipes import apply_overrides, config_from_recipe, list_recipes, load_recipe, merge
from vita_hf.training.settings import TrainingSettings

DATASETS = {  # number of classes, window size, top-k, test size with a ResNet and with Swin
    "coco": (80, 0, 100, 800, 800),
    "ytvis2019": (40, 6, 10, 360, 448),
    "ytvis2021": (40, 6, 10, 360, 448),
    "ovis": (25, 6, 20, 360, 448),
}
RELEASED = sorted(f"{d}-{b}" for d in DATASETS for b in ("r50", "r101", "swinl"))
# T, ± range, sources' weights, learning rate, batch, steps of the schedule, iterations
TRAINING = {
    "coco": (1, 0, {"coco": 1.0}, 1e-4, 16, (327778, 355092), 368750),
    "coco-swinl": (1, 0, {"coco": 1.0}, 1e-4, 16, (655556, 710184), 737500),
    "ytvis2019": (5, 20, {"coco": 1.0, "ytvis2019": 0.75}, 5e-5, 8, (75000,), 140000),
    "ytvis2021": (6, 8, {"coco": 1.0, "ytvis2021": 0.8}, 5e-5, 8, (100000,), 187500),
    "ovis": (6, 8, {"coco": 1.0, "ovis": 0.25}, 5e-5, 8, (50000, 125000), 150000),
}


def test_there_is_one_per_dataset_and_backbone():
    assert list_recipes() == sorted([*RELEASED, "tiny-synthetic"])


@pytest.mark.parametrize("name", RELEASED)
def test_facts(name):
    dataset, backbone = name.split("-")
    num_labels, window, top_k, resnet_size, swin_size = DATASETS[dataset]
    recipe = load_recipe(name)
    assert set(recipe) == {"data", "model", "processor", "clips", "training", "evaluation"}
    assert recipe["data"]["dataset"] == dataset
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


@pytest.mark.parametrize("name", RELEASED)
def test_training_facts(name):
    dataset, _ = name.split("-")
    frames, frame_range, weights, rate, batch, drops, steps = TRAINING.get(name, TRAINING[dataset])
    recipe = load_recipe(name)
    settings = TrainingSettings.from_dict(recipe["training"])
    assert (settings.learning_rate, settings.batch_size, settings.steps) == (rate, batch, steps)
    assert settings.learning_rate_steps == drops
    assert (settings.backbone_multiplier, settings.weight_decay, settings.max_grad_norm) == (0.1, 0.05, 0.01)
    assert (settings.betas, settings.epsilon, settings.learning_rate_gamma) == ((0.9, 0.999), 1e-8, 0.1)
    assert settings.init == ("backbone" if dataset == "coco" else None)
    assert [settings.learning_rate_factor(step) for step in (0, drops[0] - 1, drops[0])] == [1, 1, 0.1]
    assert settings.learning_rate_factor(steps - 1) == pytest.approx(0.1 ** len(drops), rel=1e-12)
    assert {entry["dataset"]: entry["weight"] for entry in recipe["data"]["train"]} == weights

    clips = ClipSettings.from_dict(recipe["clips"])
    assert (clips.num_frames, clips.frame_range, clips.flip_probability) == (frames, frame_range, 0.5)
    if dataset == "coco":
        jitter = clips.large_scale_jitter
        assert (jitter.size, jitter.min_scale, jitter.max_scale, clips.pad_value) == (1024, 0.1, 2.0, 128)
    else:
        assert clips.large_scale_jitter is None
        assert (clips.crop_probability, clips.crop_resize_short_edges) == (0.5, (400, 500, 600))
        assert (clips.crop_size, clips.crop_max_long_edge, clips.max_long_edge) == ((384, 600), 1333, 768)
        assert clips.short_edges == tuple(range(288, 513, 32))
        assert (clips.max_rotation_degrees, clips.rotation_center) == (15, (0.4, 0.6))


def test_tiny_recipe_is_complete():
    recipe = load_recipe("tiny-synthetic")
    assert config_from_recipe(recipe).num_labels == 6
    assert TrainingSettings.from_dict(recipe["training"]).init == "scratch"
    assert ClipSettings.from_dict(recipe["clips"]).num_frames == 8


def test_overrides():
    recipe = {"clips": {"num_frames": 5, "flip_probability": 0.5}, "training": {"steps": 9}}
    changed = apply_overrides(recipe, ["clips.num_frames=3", "training.betas=[8e-1, 0.9]", "data.dataset=x=y"])
    assert changed == {
        "clips": {"num_frames": 3, "flip_probability": 0.5},
        "training": {"steps": 9, "betas": [0.8, 0.9]},
        "data": {"dataset": "x=y"},
    }
    assert recipe["clips"]["num_frames"] == 5
    for wrong in ("clips.num_frames", "steps=3", "optimizer.lr=1", "clips.=2"):
        with pytest.raises(ValueError, match=r"expected SECTION\.KEY=VALUE"):
            apply_overrides(recipe, [wrong])
    with pytest.raises(ValueError, match="is not YAML"):
        apply_overrides(recipe, ["clips.num_frames=[1"])


def test_a_recipe_of_ones_own(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("base: ytvis2019-r50\ntraining:\n  steps: 100\n")
    recipe = load_recipe(str(own))
    assert recipe["training"]["steps"] == 100
    assert recipe["training"]["learning_rate"] == 5e-5
    own.write_text("optimizer:\n  lr: 1\n")
    with pytest.raises(ValueError, match="no such section: optimizer"):
        load_recipe(str(own))
    with pytest.raises(ValueError, match="no such file"):
        load_recipe(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, r"training\.steps: expected an integer of at least 1, got 0"),
        ({"learning_rate": "fast"}, r"training\.learning_rate: expected a number of at least 0, got 'fast'"),
        ({"betas": [0.9]}, r"training\.betas: expected two numbers in \[0, 1\), got \(0\.9,\)"),
        ({"mixed_precision": "int8"}, r"training\.mixed_precision: expected one of auto, no, bf16, fp16"),
        ({"betas": ["a", 0.9]}, r"training\.betas: expected two numbers in \[0, 1\), got \('a', 0\.9\)"),
        ({"momentum": 0.9}, r"training\.momentum: no such setting"),
    ],
)
def test_wrong_training_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings.from_dict({"steps": 1, "batch_size": 1, "learning_rate": 1e-4} | settings)
    with pytest.raises(ValueError, match=r"training\.batch_size: missing"):
        TrainingSettings.from_dict({"steps": 1, "learning_rate": 1e-4})


def test_warm_up_is_linear():
    unquoted = apply_overrides({"training": {"steps": 1, "batch_size": 1}}, ["training.mixed_precision=no"])["training"]
    assert TrainingSettings.from_dict({"learning_rate": 1e-4} | unquoted).mixed_precision == "no"
    settings = TrainingSettings(steps=9, batch_size=1, learning_rate=1.0, warmup_steps=4, warmup_factor=0.2)
    assert [settings.learning_rate_factor(s) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1], abs=1e-12)


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

"""The shipped recipes against the facts of the released configurations."""

import json

import pytest
from transformers import SwinConfig, TimmBackboneConfig

from vita_hf.image_processing_vita import VitaVideoProcessorKwargs
from vita_hf.recipes import Recipe, TrainingSettings, config_from_recipe, list_recipes, load_recipe
from vita_hf.recipes.schema import PROCESSOR_KEYS

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
    assert recipe.data.dataset == dataset
    assert recipe.evaluation.top_k == top_k
    size = swin_size if backbone == "swinl" else resnet_size
    assert recipe.processor == {"size": {"shortest_edge": size, "longest_edge": 1333}}

    config = config_from_recipe(recipe)
    assert config.num_labels == len(config.label2id) == num_labels
    assert config.evaluation_top_k == top_k
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
    settings = recipe.training
    assert (settings.learning_rate, settings.batch_size, settings.steps) == (rate, batch, steps)
    assert settings.learning_rate_steps == drops
    assert (settings.backbone_multiplier, settings.weight_decay, settings.max_grad_norm) == (0.1, 0.05, 0.01)
    assert (settings.betas, settings.epsilon, settings.learning_rate_gamma) == ((0.9, 0.999), 1e-8, 0.1)
    assert settings.init == ("backbone" if dataset == "coco" else None)
    assert [settings.learning_rate_factor(step) for step in (0, drops[0] - 1, drops[0])] == [1, 1, 0.1]
    assert settings.learning_rate_factor(steps - 1) == pytest.approx(0.1 ** len(drops), rel=1e-12)
    assert {source.dataset: source.weight for source in recipe.data.train} == weights

    clips = recipe.clips
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
    assert recipe.training.init == "scratch"
    assert recipe.clips.num_frames == 8


def test_overrides():
    overrides = [
        "clips.num_frames=3",
        "training.betas=[8e-1, 0.9]",
        "training.learning_rate = 5e-6",
        "data.dataset=x=y",
    ]
    recipe = load_recipe("ytvis2019-r50", [*overrides, "training.mixed_precision=no", "data.train.1.weight=2"])
    assert (recipe.clips.num_frames, recipe.clips.frame_range) == (3, 20)
    assert (recipe.training.betas, recipe.training.learning_rate) == ((0.8, 0.9), 5e-6)
    assert recipe.training.mixed_precision == "no" and recipe.data.dataset == "x=y"
    assert [source.weight for source in recipe.data.train] == [1, 2]
    for wrong in ("clips.num_frames", "steps=3", "model=3", "clips.=2"):
        with pytest.raises(ValueError, match=r"expected SECTION\.KEY=VALUE"):
            load_recipe("ytvis2019-r50", [wrong])
    with pytest.raises(ValueError, match=r"override 'clips.num_frames=\[1': not YAML"):
        load_recipe("ytvis2019-r50", ["clips.num_frames=[1"])
    with pytest.raises(ValueError, match=r"override 'data\.train\.9\.weight=1': list index out of range"):
        load_recipe("ytvis2019-r50", ["data.train.9.weight=1"])


def test_mappings_are_merged_and_lists_replaced():
    overrides = ["model.backbone_config={backbone: resnet18}", "data.train=[{dataset: coco}]", "clips.short_edges=[64]"]
    recipe = load_recipe("ytvis2019-r50", overrides)
    assert recipe.model["backbone_config"]["backbone"] == "resnet18"
    assert recipe.model["backbone_config"]["out_indices"] == [1, 2, 3, 4]
    assert [source.dataset for source in recipe.data.train] == ["coco"]
    assert recipe.clips.short_edges == (64,)


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_survives_json(name):
    recipe = load_recipe(name)
    values = json.loads(json.dumps(recipe.to_dict()))
    assert values == recipe.to_dict() and Recipe.from_dict(values) == recipe
    assert set(values) <= {"data", "model", "processor", "clips", "training", "evaluation"}


def test_a_source_may_change_the_clips():
    source = "{dataset: coco, clips: {flip_probability: 0, large_scale_jitter: {size: 64}}}"
    recipe = load_recipe("ytvis2019-r50", [f"data.train=[{source}, {{dataset: ytvis2019}}]"])
    clips, others = (recipe.clips_of(source) for source in recipe.data.train)
    assert (clips.flip_probability, clips.large_scale_jitter.size, clips.crop_size) == (0, 64, (384, 600))
    assert others == recipe.clips


def test_your_own_recipe(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("base: ytvis2019-r50\ntraining:\n  steps: 100\n  mixed_precision: no\n")
    recipe = load_recipe(str(own))
    assert (recipe.training.steps, recipe.training.learning_rate) == (100, 5e-5)
    assert recipe.training.mixed_precision == "no"
    own.write_text("base: [ytvis2019-r50, ovis-r50]\n")
    assert load_recipe(str(own)).data.dataset == "ovis"
    with pytest.raises(ValueError, match="no such file"):
        load_recipe(str(tmp_path / "none.yaml"))


BOMB = "\n".join([f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]" for i in range(12)])


@pytest.mark.parametrize(
    "text, message",
    [
        ("training: {steps: 3}", r"data: missing \(see the key `base`\); .*training\.batch_size: missing"),
        ("base: ytvis2019-r50\noptimizer: {lr: 1}", "optimizer: no such key"),
        ("base: ytvis2019-r18", "base: expected one of coco-r101, .*, got 'ytvis2019-r18'"),
        ("base: ../recipes/ytvis2019-r50", "base: expected one of coco-r101, .*, got '../recipes/ytvis2019-r50'"),
        (f"base: {'x' * 300}", "base: expected one of coco-r101, .*, got 'xxx.*…$"),
        ("base: {a: 1}", "base: expected one of coco-r101, .*, got {'a': 1}"),
        ("base: ytvis2019-r50\ntraining: [1]", r"Cannot merge .*\n *full_key: training"),
        ("- 1", "expected a mapping of sections, got a list"),
        ("training: [1", "not YAML"),
        ("training: {init: '${oc.env:HOME}'}", r"interpolations \(\$\{name\}\) are not supported"),
        (BOMB, r"aliases \(\*name\) .* are not supported"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"(?s)recipe {path}: .*{message}"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    "override, message",
    [
        ("training.steps=0", r"training\.steps: expected greater than 0, got 0"),
        ("training.steps=2.0", r"training\.steps: expected a valid integer, got 2\.0"),
        ("training.batch_size=true", r"training\.batch_size: expected a valid integer, got True"),
        ("training.batch_size='8'", r"training\.batch_size: expected a valid integer, got '8'"),
        ("training.learning_rate=fast", r"training\.learning_rate: expected a valid number, got 'fast'"),
        ("training.learning_rate=.nan", r"training\.learning_rate: expected a finite number, got nan"),
        ("training.betas=[0.9]", r"training\.betas\[1\]: missing"),
        ("training.betas=[a, 1]", r"betas\[0\]: .* number, got 'a'; training\.betas\[1\]: expected less than 1, got 1"),
        ("training.mixed_precision=int8", r"mixed_precision: expected 'auto', 'no', 'bf16' or 'fp16', got 'int8'"),
        ("training.init=no", r"training\.init: expected a valid string, got False"),
        ("training.momentum=0.9", r"training\.momentum: no such key"),
        ("model.num_querys=1", r"model\.num_querys: no such key; expected one of .*num_queries"),
        ("model.id2label={0: cat}", r"model\.id2label: no such key"),
        ("processor.sise=1", r"processor\.sise: no such key; expected one of .*size"),
        ("evaluation.top_k=0", r"evaluation\.top_k: expected greater than 0, got 0"),
        ("data.train=3", r"data\.train: expected a valid tuple, got 3"),
        ("data.train=[{dataset: coco, wait: 1}]", r"data\.train\[0\]\.wait: no such key"),
        ("data.train=[{weight: 1}]", r"data\.train\[0\]\.dataset: missing"),
        ("data.train=[{dataset: coco, clips: {pad_value: 300}}]", r"data\.train\[0\]\.clips\.pad_value: .* got 300"),
        ("clips.frame_rage=3", r"clips\.frame_rage: no such key"),
        ("clips.num_frames=0", r"clips\.num_frames: expected greater than 0, got 0"),
        ("clips.frame_range=0", "clips: expected a frame_range of at least 1 for clips of several frames, got 0"),
        ("clips.short_edges=[]", r"clips\.short_edges: .* at least 1 item.*, got \[\]"),
        ("clips.short_edges=96", r"clips\.short_edges: expected a valid tuple, got 96"),
        ("clips.short_edges=[96, 0.5]", r"clips\.short_edges\[1\]: expected a valid integer, got 0\.5"),
        ("clips.crop_size=[600, 384]", r"clips\.crop_size: expected two ascending numbers, got \[600, 384\]"),
        ("clips.crop_probability=1.5", r"clips\.crop_probability: expected less than or equal to 1, got 1\.5"),
        ("clips.flip_probability=yes", r"clips\.flip_probability: expected a valid number, got True"),
        ("clips.max_long_edge=-1", r"clips\.max_long_edge: expected greater than 0, got -1"),
        ("clips.max_rotation_degrees=-1", r"clips\.max_rotation_degrees: expected greater than or equal to 0, got -1"),
        ("clips.rotation_center=[0.5]", r"clips\.rotation_center\[1\]: missing"),
        ("clips.pad_value=256", r"clips\.pad_value: expected less than or equal to 255, got 256"),
        ("clips.large_scale_jitter=3", r"clips\.large_scale_jitter: expected a valid dictionary .*, got 3"),
        ("clips.large_scale_jitter={scale: 3}", r"clips\.large_scale_jitter\.scale: no such key"),
        (
            "clips.large_scale_jitter={min_scale: 3}",
            "large_scale_jitter: expected min_scale ≤ max_scale, got 3.0 and 2.0",
        ),
    ],
)
def test_wrong_values_are_named(override, message):
    with pytest.raises(ValueError, match=f"recipe ytvis2019-r50: .*{message}"):
        load_recipe("ytvis2019-r50", [override])


def test_all_faults_are_listed():
    with pytest.raises(ValueError, match=r"clips\.pad_value: .*; training\.steps: .*; model\.x: "):
        load_recipe("ytvis2019-r50", ["model.x=1", "training.steps=0", "clips.pad_value=-1"])


def test_processor_keys_are_those_of_the_processor():
    assert set(VitaVideoProcessorKwargs.__annotations__) == PROCESSOR_KEYS


def test_warm_up_is_linear():
    settings = TrainingSettings(steps=9, batch_size=1, learning_rate=1.0, warmup_steps=4, warmup_factor=0.2)
    assert [settings.learning_rate_factor(s) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1], abs=1e-12)


def test_labels_follow_from_the_dataset():
    assert config_from_recipe(load_recipe("ovis-r50")).id2label[24] == "Vehical"
    with pytest.raises(ValueError, match=r"data\.dataset: missing"):
        config_from_recipe(load_recipe("ovis-r50", ["data.dataset=null"]))


def test_unknown_recipe():
    with pytest.raises(ValueError, match=r"recipe: expected one of coco-r101, .*, got 'ytvis2019-r18'"):
        load_recipe("ytvis2019-r18")
    with pytest.raises(ValueError, match=r"recipe: expected one of"):
        load_recipe("base/r50")


def test_a_text_is_no_recipe(tmp_path):
    (tmp_path / "text.yaml").write_text('"1"')
    with pytest.raises(ValueError, match=r"recipe .*text\.yaml: expected a mapping"):
        load_recipe(str(tmp_path / "text.yaml"))

"""YAML: detectron2's configs and recipes."""

import random
from pathlib import Path

import yaml

from fuzz.driver import refusals
from fuzz.mutations import mutate_bytes, mutate_json
from vita_hf.conversion.detectron2_config import config_from_detectron2, processor_from_detectron2, read_detectron2_yaml
from vita_hf.recipes import config_from_recipe, load_recipe

SUFFIX = ".yaml"
DETECTRON2 = {
    "MODEL": {
        "BACKBONE": {"NAME": "build_resnet_backbone"},
        "RESNETS": {"DEPTH": 50, "STEM_OUT_CHANNELS": 64},
        "SEM_SEG_HEAD": {"NUM_CLASSES": 40, "TRANSFORMER_ENC_LAYERS": 6},
        "MASK_FORMER": {"HIDDEN_DIM": 256, "NHEADS": 8, "DROPOUT": 0.0, "SIZE_DIVISIBILITY": 32},
        "VITA": {"NHEADS": 8, "DEC_LAYERS": 6, "LAST_LAYER_NUM": 3, "ENC_WINDOW_SIZE": "6"},
        "PIXEL_MEAN": [123.675, 116.28, 103.53],
    },
    "INPUT": {"FORMAT": "RGB", "MIN_SIZE_TEST": 360, "MAX_SIZE_TEST": "1333"},
    "DATASETS": {"TEST": "('ytvis_2019_val',)"},
}
RECIPE = {
    "base": "ytvis2019-r50",
    "training": {"steps": 10, "learning_rate": 1e-4, "betas": [0.9, 0.99]},
    "clips": {"num_frames": 2, "short_edges": [96, 128], "large_scale_jitter": {"size": 64}},
    "model": {"num_queries": 10, "backbone_config": {"model_type": "swin", "depths": [1, 1, 1, 1]}},
    "processor": {"size": {"shortest_edge": 96}},
    "data": {"dataset": "ytvis2019", "train": [{"dataset": "coco", "weight": 0.5}]},
}
BOMB = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10) if i else 1}]\n" for i in range(10))
SNIPPETS = (
    BOMB,
    "_BASE_: .\n",
    "_BASE_: [a.yaml]\n",
    "a: &a [*a]\n",
    "<<: {a: 1}\n",
    "? [1]\n: 2\n",
    "a: !!python/name:os.system\n",
)


def mutate(rng: random.Random) -> bytes:
    content = rng.choice((DETECTRON2, RECIPE))
    data = mutate_json(rng, content)  # json is YAML, too
    if rng.random() < 0.5:
        data = yaml.safe_dump(content).encode()
        data = mutate_bytes(rng, data) if rng.random() < 0.7 else data + rng.choice(SNIPPETS).encode()
    return data


def check(path: Path) -> None:
    with refusals(path):
        config = read_detectron2_yaml(path)
        try:
            config_from_detectron2(config)
            processor_from_detectron2(config)
        except ValueError as error:  # of settings by name, from no file
            raise ValueError(f"{path}: {error}") from error
    with refusals(path):
        recipe = load_recipe(str(path))
        try:
            config_from_recipe(recipe)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

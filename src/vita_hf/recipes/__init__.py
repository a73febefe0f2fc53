"""Recipes: one short YAML file per released model, `<dataset>-<backbone>.yaml`, over the shared files in `base/`.

The sections of a recipe:

- `base`: a recipe's name or a list of names, merged in this order before the file itself; mappings are merged key by
  key, anything else is replaced;
- `data`: `dataset`, a name of [`vita_hf.data.categories`], from which the model's labels follow; `train`, a list of
  `{dataset, weight}`, what clips are drawn from;
- `model`: fields of [`VitaConfig`];
- `processor`: fields of [`VitaVideoProcessor`];
- `clips`: fields of [`vita_hf.data.clips.ClipSettings`];
- `training`: fields of [`vita_hf.training.settings.TrainingSettings`];
- `evaluation`: `top_k`, the predictions per video that the data set's benchmark is run with.

Values are the released configurations' (NeurIPS 2022, arXiv 2206.04403; repository `sukjunhwang/VITA`), but for
`training.mixed_precision`, which is fp16 there.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..configuration_vita import VitaConfig
from ..data.categories import id2label
from ..image_processing_vita import VitaVideoProcessorKwargs

SECTIONS = frozenset({"data", "model", "processor", "clips", "training", "evaluation"})


_DATA_KEYS, _SOURCE_KEYS, _EVALUATION_KEYS = {"dataset", "train"}, {"dataset", "weight", "clips"}, {"top_k"}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as it is safe to load, but 5e-5 is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def check_recipe(recipe: dict[str, Any]) -> None:
    """
    Look for what a training can't go without, and for names that no section has: a typing error would have no effect.

    The values of `clips` and `training` are checked by their own classes.

    Raises:
        ValueError: names the first such section or key.
    """
    for section in ("data", "clips", "training"):
        if not isinstance(recipe.get(section), dict):
            raise ValueError(
                f"the recipe's section {section!r}: expected keys and values, got {recipe.get(section)!r}; a recipe of "
                "one's own gets the usual ones by its base, for example base: ytvis2019-r50"
            )

    def check(section: str, values: Any, known: Collection[str]) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{section}: expected keys and values, got {values!r}")
        for key in values:
            if key not in known:
                raise ValueError(f"{section}.{key}: no such key; expected one of {', '.join(sorted(known))}")

    check("model", recipe.get("model", {}), {field.name for field in fields(VitaConfig)})
    check("processor", recipe.get("processor", {}), VitaVideoProcessorKwargs.__annotations__)
    check("evaluation", recipe.get("evaluation", {}), _EVALUATION_KEYS)
    check("data", recipe.get("data", {}), _DATA_KEYS)
    sources = recipe.get("data", {}).get("train", [])
    if not isinstance(sources, list):
        raise ValueError(f"data.train: expected a list, got {sources!r}")
    for number, source in enumerate(sources):
        check(f"data.train[{number}]", source, _SOURCE_KEYS)
        if "dataset" not in source:
            raise ValueError(f"data.train[{number}].dataset: missing")


def list_recipes() -> list[str]:
    """Names of the recipes in the package, for example "ytvis2019-r50"."""
    return sorted(path.name.removesuffix(".yaml") for path in files(__name__).iterdir() if path.name.endswith(".yaml"))


def load_recipe(name: str) -> dict[str, Any]:
    """
    A recipe with its bases merged in, as a plain dictionary without the `base` key.

    Args:
        name: one of [`list_recipes`], or the path of a YAML file of one's own, whose `base` may name these.

    Raises:
        ValueError: if there is no such recipe, or a section that recipes don't have.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"recipe: no such file: {name}")
        recipe = _read(path)
    elif name in list_recipes():
        recipe = _load(name)
    else:
        raise ValueError(f"recipe: expected one of {', '.join(list_recipes())} or a .yaml file, got {name!r}")
    unknown = sorted(recipe.keys() - SECTIONS)
    if unknown:
        raise ValueError(f"recipe {name}: no such section: {unknown[0]}; expected {', '.join(sorted(SECTIONS))}")
    return recipe


def apply_overrides(recipe: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """
    A recipe with values replaced, as on the command line.

    Args:
        recipe: changed in nothing.
        overrides: `section.key=value` (deeper keys by more dots), the value as YAML: `clips.num_frames=3`,
            `training.learning_rate_steps=[100, 200]`.

    Raises:
        ValueError: one that can't be read, or whose section doesn't exist.
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or len(keys) < 2 or keys[0] not in SECTIONS or not all(keys):
            raise ValueError(
                f"override {override!r}: expected SECTION.KEY=VALUE with SECTION one of {', '.join(sorted(SECTIONS))}"
            )
        try:
            value = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise ValueError(f"override {override!r}: the value is not YAML: {error}") from None
        for key in reversed(keys):
            value = {key: value}
        recipe = merge(recipe, value)
    return recipe


def _load(name: str) -> dict[str, Any]:
    return _read(files(__name__).joinpath(f"{name}.yaml"))


def _read(file) -> dict[str, Any]:
    try:
        recipe = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"{file}: expected sections, got {type(recipe).__name__}")
    bases = recipe.pop("base", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = merge(merged, _load(base))
    return merge(merged, recipe)


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """`base` with `override` laid over it: mappings key by key, other values replaced. Changes neither."""
    merged = dict(base)
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = merge(merged[key], value)
        merged[key] = value
    return merged


def config_from_recipe(recipe: dict[str, Any]) -> VitaConfig:
    """
    The model's configuration, with the labels of the recipe's data set.

    Args:
        recipe: what [`load_recipe`] returns.

    Raises:
        ValueError: if a field's value cannot work; the message names the field.
    """
    labels = id2label(recipe["data"]["dataset"])
    return VitaConfig(
        **recipe.get("model", {}), id2label=labels, label2id={label: index for index, label in labels.items()}
    )


__all__ = ["SECTIONS", "apply_overrides", "check_recipe", "config_from_recipe", "list_recipes", "load_recipe", "merge"]

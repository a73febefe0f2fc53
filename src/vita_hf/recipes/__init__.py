"""Recipes: one short YAML file per released model, `<dataset>-<backbone>.yaml`, over the shared files in `base/`.

The sections of a recipe:

- `base`: a recipe's name or a list of names, merged in this order before the file itself; mappings are merged key by
  key, anything else is replaced;
- `data`: `dataset`, a name of [`vita_hf.data.categories`], from which the model's labels follow;
- `model`: fields of [`VitaConfig`];
- `processor`: fields of [`VitaVideoProcessor`];
- `evaluation`: `top_k`, the predictions per video that the data set's benchmark is run with.

Values are the released configurations' (NeurIPS 2022, arXiv 2206.04403; repository `sukjunhwang/VITA`).
"""

from importlib.resources import files
from typing import Any

import yaml

from ..configuration_vita import VitaConfig
from ..data.categories import id2label


def list_recipes() -> list[str]:
    """Names of the recipes in the package, for example "ytvis2019-r50"."""
    return sorted(path.name.removesuffix(".yaml") for path in files(__name__).iterdir() if path.name.endswith(".yaml"))


def load_recipe(name: str) -> dict[str, Any]:
    """
    A recipe with its bases merged in, as a plain dictionary without the `base` key.

    Args:
        name: one of [`list_recipes`].

    Raises:
        ValueError: if there is no such recipe.
    """
    if name not in list_recipes():
        raise ValueError(f"recipe: expected one of {', '.join(list_recipes())}, got {name!r}")
    return _load(name)


def _load(name: str) -> dict[str, Any]:
    recipe = yaml.safe_load(files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
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


__all__ = ["config_from_recipe", "list_recipes", "load_recipe", "merge"]

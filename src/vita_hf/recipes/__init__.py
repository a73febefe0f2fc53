"""Recipes: one short YAML file per released model, with the values of the authors' repository `sukjunhwang/VITA`.

Its key `base` names one or more recipes to start from. They are merged in this order, and the file itself comes last.
Mappings are merged key by key; anything else is replaced.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..configuration_vita import VitaConfig, config_errors
from ..data.categories import id2label
from ..ops.rle import shorten
from ..text import did_you_mean
from .plain_yaml import MAX_CHARACTERS
from .schema import Recipe, TrainingSettings

_FOLDER = Path(__file__).parent


def list_recipes() -> list[str]:
    """List the names of the package's recipes, for example "ytvis2019-r50"."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """
    Load a recipe with its bases merged in.

    Args:
        name: One of [`list_recipes`], or the path of your own YAML file, whose `base` may name one of them.
        overrides: Replaced values, as on the command line: `section.key=value`, the value written as in YAML.

    Raises:
        ValueError: if there is no such recipe, or if a file or an override is wrong; the message lists every wrong key.

    Example:
    ```python
    >>> from vita_hf.recipes import load_recipe

    >>> recipe = load_recipe("ytvis2019-r50", ["training.learning_rate=1e-5", "clips.short_edges=[96, 128]"])
    >>> recipe.training.learning_rate, recipe.clips.short_edges, recipe.evaluation.top_k
    (1e-05, (96, 128), 10)

    ```
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(name)
        if not file.is_file():
            raise ValueError(f"recipe: no such file: {name}")
    elif name in list_recipes():
        file = _FOLDER / f"{name}.yaml"
    else:
        hint = did_you_mean(name, list_recipes())
        raise ValueError(f"recipe: expected one of {', '.join(list_recipes())} or a .yaml file, got {name!r}{hint}")
    try:
        sections = _read(file)
        for override in overrides:
            _apply(override, sections)
        return Recipe.from_dict(OmegaConf.to_container(sections))
    except (ValueError, OmegaConfBaseException) as error:
        raise ValueError(f"recipe {name}: {error}") from None


def config_from_recipe(recipe: Recipe) -> VitaConfig:
    """
    Build the model's configuration, with the labels of the recipe's dataset.

    Raises:
        ValueError: if a value is wrong; the message names the field.
    """
    if recipe.data.dataset is None:
        raise ValueError("data.dataset: missing; the model's labels follow from it")
    labels = id2label(recipe.data.dataset)
    ids = {label: index for index, label in labels.items()}
    with config_errors("the recipe's model section"):
        return VitaConfig(**recipe.model, id2label=labels, label2id=ids, evaluation_top_k=recipe.evaluation.top_k)


def _read(file: Path) -> DictConfig:
    """Read a recipe's file and merge it over its bases."""
    sections = _parse(file.read_text(encoding="utf-8"))
    if not isinstance(sections, DictConfig):
        raise ValueError("expected a mapping of sections, got a list")
    bases = sections.pop("base", None)
    recipe = OmegaConf.create()
    known = {file.relative_to(_FOLDER).with_suffix("").as_posix() for file in _FOLDER.rglob("*.yaml")}
    for base in bases if isinstance(bases, ListConfig) else [] if bases is None else [bases]:
        if not isinstance(base, str) or base not in known:
            raise ValueError(f"base: expected one of {', '.join(list_recipes())}, got {shorten(base)}")
        recipe.merge_with(_read(_FOLDER / f"{base}.yaml"))
    for section, values in sections.items():
        OmegaConf.update(recipe, str(section), values)
    return recipe


def _apply(override: str, sections: DictConfig) -> None:
    """Apply an override SECTION.KEY=VALUE to the sections."""
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)+", key.strip()):
        raise ValueError(f"override {override!r}: expected SECTION.KEY=VALUE")
    try:
        OmegaConf.update(sections, key.strip(), _parse(f"value: {value}")["value"])
    except (ValueError, OmegaConfBaseException) as error:
        raise ValueError(f"override {override!r}: {error}") from None


def _parse(text: str) -> Any:
    """Parse YAML without aliases, which can blow up a short text, and without interpolations, which read variables."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"expected at most {MAX_CHARACTERS} characters of YAML, got {len(text)}")
    try:
        if "${" in text or any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("aliases (*name) and interpolations (${name}) are not supported")
        return OmegaConf.load(io.StringIO(text))
    except RecursionError:
        raise ValueError("not YAML: nested too deeply") from None
    except AssertionError:  # OmegaConf's, for a text that is a quoted string
        raise ValueError("expected a mapping, got a string") from None
    except (yaml.YAMLError, OSError) as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None


__all__ = ["Recipe", "TrainingSettings", "config_from_recipe", "list_recipes", "load_recipe"]

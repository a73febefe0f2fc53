"""Checkpoints of the original implementation → models and directories of this package.

A checkpoint holds only weights; its detectron2 YAML or a recipe describes their network. Nothing is guessed: a name, a
shape or a setting without a counterpart here is an error that names it.
"""

import logging
import os
import re
from collections import Counter
from pathlib import Path

import torch

from ..cards.model import model_card
from ..configuration_vita import VitaConfig
from ..files import UNFINISHED, check_writable, replace_files
from ..image_processing_vita import VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..recipes import config_from_recipe, list_recipes, load_recipe
from . import detectron2_config as detectron2
from .weights import convert_state_dict, read_weights

logger = logging.getLogger(__name__)


def load_original_checkpoint(
    weights: str | os.PathLike, config_file: str | os.PathLike | None = None, recipe: str | None = None
) -> VitaForVideoInstanceSegmentation:
    """
    Load a checkpoint of the original implementation.

    Args:
        weights: The `.pth` file, with the state dict itself or under "model". Only tensors and plain values are read.
        config_file: The detectron2 YAML that the checkpoint was trained with (complete, or with `_BASE_`), or the name
            of a recipe.
        recipe: The name of one of [`vita_hf.recipes.list_recipes`], in place of `config_file`.

    Returns:
        The model in evaluation mode, float32, on the CPU. A warning lists the tensors that the model does not need.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if the file holds more than tensors and plain values, if the config describes a network that this
            package cannot represent, or if names or shapes do not fit; the message lists all of them.
    """
    return _load(weights, _network(config_file, recipe)[0])


def convert_checkpoint(
    weights: str | os.PathLike,
    output_dir: str | os.PathLike,
    config_file: str | os.PathLike | None = None,
    recipe: str | None = None,
    overwrite: bool = False,
) -> Path:
    """
    Convert a checkpoint of the original implementation into a directory for `from_pretrained`, written atomically.

    The directory holds the weights (safetensors), the configurations of model and processor, and a model card.

    Args:
        weights, config_file, recipe: As for [`load_original_checkpoint`].
        output_dir: The directory to write; must be empty or not exist.
        overwrite: Replace the files of a model in `output_dir`. Files of other names stay.

    Returns:
        The absolute path of the directory.

    Raises:
        FileExistsError: if `output_dir` is not empty and `overwrite` is False, or if it holds no model.
        FileNotFoundError, ValueError: as for [`load_original_checkpoint`].
    """
    output_dir = Path(output_dir).resolve()
    if output_dir.exists() and not (output_dir.is_dir() and not any(output_dir.iterdir())):
        if not overwrite:
            raise FileExistsError(f"output directory is not empty: {output_dir}")
        if not any((output_dir / name).is_file() for name in ("config.json", UNFINISHED)):
            raise FileExistsError(f"not overwritten, because it holds no model (no config.json): {output_dir}")
    check_writable(output_dir)
    config, processor, dataset, recipe = _network(config_file, recipe)
    model = _load(weights, config)
    with replace_files(output_dir, last="config.json") as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(config, dataset, recipe), encoding="utf-8")
    return output_dir


def _network(
    config_file: str | os.PathLike | None, recipe: str | None
) -> tuple[VitaConfig, VitaVideoProcessor, str | None, str | None]:
    """Return model configuration, processor, dataset and recipe that belong to a checkpoint."""
    source = config_file if recipe is None else recipe
    if source is None or None not in (config_file, recipe):
        raise ValueError(
            "expected either config_file or recipe: a checkpoint does not say which network it belongs to. "
            f"Recipes: {', '.join(list_recipes())}"
        )
    if recipe is not None or (str(source) in list_recipes() and not Path(source).exists()):
        recipe = str(source)
        sections = load_recipe(recipe)
        processor = VitaVideoProcessor(**sections.processor)
        return config_from_recipe(sections), processor, sections.data.dataset, recipe
    cfg = detectron2.read_detectron2_yaml(source)
    config, processor = detectron2.config_from_detectron2(cfg), detectron2.processor_from_detectron2(cfg)
    return config, processor, detectron2.dataset_from_detectron2(cfg), None


def _load(weights: str | os.PathLike, config: VitaConfig) -> VitaForVideoInstanceSegmentation:
    original = read_weights(Path(weights))
    with torch.device("meta"):  # names and shapes are compared before a network of any size takes memory
        expected = VitaForVideoInstanceSegmentation(config).state_dict()
    try:
        state_dict, unneeded = convert_state_dict(original, expected)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None
    model = VitaForVideoInstanceSegmentation(config)
    model.load_state_dict(state_dict, strict=False)  # convert_state_dict has compared the names
    if unneeded:
        counts = Counter(re.sub(r"\d+", "*", name) for name in unneeded)
        names = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items())
        logger.warning(f"Tensors of the checkpoint that the model does not need: {names}")
    return model.eval()

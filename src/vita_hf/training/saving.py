"""Save a trained model: a directory for `from_pretrained`, with a card that describes the run."""

import logging
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from huggingface_hub import HfApi
from transformers import TimmBackboneConfig

from ..cards.training import DataSource, TrainingReport, training_card
from ..configuration_vita import VitaConfig
from ..data.categories import CATEGORIES
from ..files import UNFINISHED, replace_files
from ..hub import hub_errors
from ..recipes import Recipe
from .datasets import Source
from .initialization import pretrained_name
from .loop import Trainer

logger = logging.getLogger(__name__)

MODEL_FILES = ("README.md", "config.json", "model.safetensors", "video_preprocessor_config.json")

_PACKAGES = ("vita-hf", "torch", "transformers", "accelerate", "datasets", "timm")


def save_model(trainer: Trainer, recipe: Recipe, sources: Sequence[Source]) -> list[str]:
    """
    Write weights, configurations and the card to the output directory. Call this in every process.

    `config.json` comes last: a directory without it holds no model, or an unfinished one.

    The weights are stored in `training.save_dtype`; the configuration says float32, so that they load in float32.

    Returns:
        The names of the files in the main process, an empty list in the others.
    """
    accelerator, output = trainer.accelerator, trainer.options.output
    model = accelerator.unwrap_model(trainer.model)
    state = accelerator.get_state_dict(trainer.model)
    if not accelerator.is_main_process:
        return []
    dtype = getattr(torch, recipe.training.save_dtype)
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model.config.dtype = torch.float32
    # With own data, the classes need not be those of the recipe's dataset.
    is_recipe_dataset = CATEGORIES.get(recipe.data.dataset) == tuple(model.config.id2label.values())
    dataset = recipe.data.dataset if is_recipe_dataset else None
    card = training_card(model.config, _describe_training(trainer, recipe, sources), dataset=dataset)
    with replace_files(output, last="config.json") as folder:
        model.save_pretrained(folder, state_dict=state)
        trainer.processor.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors lets only the owner read its files
        return sorted(file.name for file in folder.iterdir())


def _describe_training(trainer: Trainer, recipe: Recipe, sources: Sequence[Source]) -> TrainingReport:
    entries, split = trainer.log.entries(), trainer.split
    scores = [entry["evaluation"] for entry in entries if "evaluation" in entry and entry["step"] == trainer.step]
    evaluated_on = None
    if split is not None and scores:
        name = f"{split.path.resolve().parent.name}/{split.path.stem}"
        evaluated_on = DataSource(name=name, videos=len(split.clips))
    return TrainingReport(
        recipe=trainer.options.recipe,
        data=[DataSource(name=source.data.name, videos=source.num_rows, weight=source.weight) for source in sources],
        steps=trainer.step,
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
        overrides=trainer.options.overrides,
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        metrics=scores[-1] if scores else {},
        evaluated_on=evaluated_on,
        base_model=base_model(recipe.training.init, trainer.config),
        hardware=describe_hardware(trainer.accelerator),
        seconds=trainer.seconds,
        learning_curve=learning_curve(entries),
    )


def describe_hardware(accelerator: Accelerator) -> str:
    """Describe the hardware for the card, for example "2 × NVIDIA H100" or "CPU (x86_64), 2 threads"."""
    count = accelerator.num_processes
    if accelerator.device.type == "cuda":
        return f"{count} × {torch.cuda.get_device_name(accelerator.device)}"
    kind = platform.machine() if accelerator.device.type == "cpu" else accelerator.device.type
    return f"{f'{count} × ' if count > 1 else ''}CPU ({kind}), {torch.get_num_threads()} threads"


def learning_curve(entries: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Collect the scores of a training run, each with the loss at that time."""
    rows, loss = [], float("nan")
    for entry in entries:
        loss = entry.get("loss", loss)
        if "evaluation" in entry:
            scores = {name: round(entry["evaluation"][name], 4) for name in ("AP", "AP50", "AP75")}
            rows.append({"step": entry["step"], "loss": round(loss, 3), **scores})
    return rows


def base_model(init: str | None, config: VitaConfig) -> str | None:
    """Name what a training run started from: a Hub id or a local directory; None if it started from scratch."""
    if init is None or init == "scratch":
        return None
    if init == "backbone":
        name = pretrained_name(config.backbone_config)
        return f"timm/{name}" if isinstance(config.backbone_config, TimmBackboneConfig) else name
    return Path(init).resolve().name if Path(init).is_dir() else init


def push_to_hub(folder: Path, files: Sequence[str], repository: str) -> None:
    """
    Upload the files of a finished model to a model repository of the Hub, and nothing else in the folder.

    Raises:
        ValueError: if the folder holds no finished model, or the upload fails.
    """
    if not (folder / "config.json").is_file() or (folder / UNFINISHED).exists():
        raise ValueError(f"{folder} holds no finished model")
    with hub_errors(repository):
        HfApi().upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[*files],
        )
    logger.info("pushed to https://huggingface.co/%s", repository)


__all__ = ["base_model", "describe_hardware", "learning_curve", "push_to_hub", "save_model"]

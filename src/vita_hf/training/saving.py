"""The end of a training: a directory for `from_pretrained`, with a model card that says how it came about."""

import logging
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from huggingface_hub import HfApi
from transformers import TimmBackboneConfig

from ..cards.training import DataSource, TrainingReport, training_card
from ..data.categories import CATEGORIES
from ..hub import hub_errors
from ..image_processing_vita import VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..recipes import Recipe
from .initialization import pretrained_name
from .loop import Trainer

logger = logging.getLogger(__name__)

# What a training may go on with although it differs from what it began with.
_FREE = ("training.steps", "training.learning_rate_steps", "training.save_dtype", "evaluation.")
_PACKAGES = ("vita-hf", "torch", "transformers", "accelerate", "datasets", "timm")


def flatten(recipe: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's values by dotted names."""
    flat = {}
    for key, value in recipe.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def describe_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Dotted names of the values in which two recipes differ, but for those that may change on resuming."""
    old, new = flatten(before), flatten(now)
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and not key.startswith(_FREE))


def describe_hardware(accelerator: Accelerator) -> str:
    """For the model card, for example "2 × NVIDIA H100" or "CPU, 2 threads"."""
    count = accelerator.num_processes
    if accelerator.device.type == "cuda":
        return f"{count} × {torch.cuda.get_device_name(accelerator.device)}"
    kind = platform.machine() if accelerator.device.type == "cpu" else accelerator.device.type
    return f"{f'{count} × ' if count > 1 else ''}CPU ({kind}), {torch.get_num_threads()} threads"


def package_versions() -> dict[str, str]:
    """Versions of what a training's result may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def learning_curve(entries: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Rows for the model card from a training's log: the scores at each evaluation, with the loss of that time."""
    rows, loss = [], float("nan")
    for entry in entries:
        loss = entry.get("loss", loss)
        if "evaluation" in entry:
            scores = {name: round(entry["evaluation"][name], 4) for name in ("AP", "AP50", "AP75")}
            rows.append({"step": entry["step"], "loss": round(loss, 3), **scores})
    return rows


def save_model(
    accelerator: Accelerator,
    trainer: Trainer,
    processor: VitaVideoProcessor,
    folder: Path,
    *,
    recipe: Recipe,
    recipe_name: str,
    overrides: list[str],
    data: list[DataSource],
    evaluated_on: DataSource | None,
) -> None:
    """
    Write weights, config, processor and README.md; to be called in every process.

    The weights get `training.save_dtype`; the config says float32, in which they load.

    Args:
        folder: where to.
        recipe, recipe_name, overrides: what was trained, as it was asked for.
        data, evaluated_on: for the card.
    """
    model = accelerator.unwrap_model(trainer.model)
    state = accelerator.get_state_dict(trainer.model)
    if not accelerator.is_main_process:
        return
    settings, entries = trainer.settings, trainer.log.entries()
    dtype = getattr(torch, settings.save_dtype)
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model.config.dtype = torch.float32
    scores = [entry["evaluation"] for entry in entries if "evaluation" in entry and entry["step"] == trainer.step]
    report = TrainingReport(
        recipe=recipe_name,
        data=data,
        steps=trainer.step,
        batch_size=settings.batch_size,
        seed=settings.seed,
        overrides=overrides,
        versions=package_versions(),
        metrics=scores[-1] if scores else {},
        evaluated_on=evaluated_on if scores else None,
        base_model=base_model(settings.init, model),
        hardware=describe_hardware(accelerator),
        seconds=trainer.seconds,
        learning_curve=learning_curve(entries),
    )
    model.config.evaluation_top_k = recipe.evaluation.top_k
    dataset = recipe.data.dataset
    if tuple(model.config.id2label.values()) != CATEGORIES.get(dataset):  # own data, trained by another set's recipe
        dataset = None
    card = training_card(model.config, report, dataset=dataset)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        model.save_pretrained(unfinished, state_dict=state)
        processor.save_pretrained(unfinished)
        Path(unfinished, "README.md").write_text(card, encoding="utf-8")
        for file in Path(unfinished).iterdir():
            file.chmod(0o644)  # temporary files are their owner's alone
            os.replace(file, folder / file.name)


def base_model(init: str, model: VitaForVideoInstanceSegmentation) -> str | None:
    """What a training started from, for its card: a Hub id, or the name of a local directory."""
    if init == "scratch":
        return None
    if init == "backbone":
        config = model.config.backbone_config
        name = pretrained_name(config)
        return f"timm/{name}" if isinstance(config, TimmBackboneConfig) else name
    return os.path.basename(os.path.abspath(init)) if os.path.isdir(init) else init


def push_to_hub(folder: Path, repository: str) -> None:
    """Upload what `save_model` wrote, not the checkpoints, to a model repository of the Hub."""
    with hub_errors(repository):
        HfApi().upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=["*.json", "*.safetensors", "README.md", "recipe.yaml"],
            ignore_patterns=["checkpoints/*", "evaluation/*", "trackers/*"],
        )
    logger.info("pushed to https://huggingface.co/%s", repository)


__all__ = [
    "base_model",
    "describe_changes",
    "flatten",
    "learning_curve",
    "package_versions",
    "push_to_hub",
    "save_model",
]

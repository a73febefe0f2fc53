"""A training run from recipe to finished model, as started by `vita-hf train`."""

import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from ..data.clips.schedule import check_batch_size
from ..evaluation.splits import Split, check_split, read_split
from ..files import RunRecord, check_writable, flatten, remove_folder, write_atomically
from ..hub import create_repository
from ..image_processing_vita import VitaVideoProcessor
from ..recipes import Recipe, load_recipe
from ..text import counted
from .checkpoints import Checkpoints
from .datasets import Source, make_clips, read_sources
from .initialization import build_model
from .loop import Trainer
from .options import TrainingOptions
from .precision import check_sharding, choose_precision
from .saving import MODEL_FILES, push_to_hub, save_model
from .signals import TrainingInterrupted

logger = logging.getLogger(__name__)

TRACKER = "vita-hf"  # the project's name

_PRECISIONS = {"no": "float32", "bf16": "float32 with bfloat16", "fp16": "float32 with float16"}

# What may change when a training run continues.
_FREE = ("training.steps", "training.learning_rate_steps", "training.save_dtype", "evaluation.")


def train(options: TrainingOptions) -> None:
    """
    Train a model, or continue a training run, and write the model to `options.output`.

    Call this in every process that `accelerate launch` starts.

    Raises:
        ValueError, OSError: if a setting is wrong, data cannot be read, or `options.output` holds a different run.
        TrainingInterrupted: after SIGINT or SIGTERM, once a checkpoint is saved.
    """
    # Settings: find what is wrong before any work.
    recipe, init = _load_recipe(options)
    settings = recipe.training
    accelerator = _create_accelerator(recipe, options)
    check_sharding(accelerator, evaluates=options.eval_json is not None)
    check_batch_size(settings.batch_size, options.micro_batches, accelerator.num_processes)

    # Data.
    with accelerator.main_process_first():  # the main process fills the cache of annotations
        sources = read_sources(recipe, options)
    id2label = sources[0].data.id2label
    split = _read_split(options, id2label)
    record = _record(recipe, sources, options.output)
    _check_output(record, options.overwrite)

    # Model.
    processor = VitaVideoProcessor(**recipe.processor)
    torch.manual_seed(settings.seed)
    model = build_model({**recipe.model, "evaluation_top_k": recipe.evaluation.top_k}, id2label, init)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    # Training. Nothing earlier is removed before all inputs are known to be good.
    if options.overwrite:
        _remove_earlier_training(accelerator, options.output)
    clips = make_clips(sources, settings, options.skip_broken)
    trainer = Trainer(accelerator, model, processor, settings, clips, options, split)
    resumed = trainer.resume()
    if accelerator.is_main_process:
        if options.push_to_hub:
            create_repository(options.push_to_hub, "model")  # fails now rather than after the training
        record.write()
        write_atomically(options.output / "recipe.yaml", yaml.safe_dump(recipe.to_dict(), sort_keys=False).encode())
    if options.report_to:
        _start_trackers(accelerator, recipe)
    _log_start(trainer, sources, resumed)
    try:
        trainer.run()
    except TrainingInterrupted:
        accelerator.end_training()
        raise

    # The finished model.
    files = save_model(trainer, recipe, sources)
    logger.info("written: %s", options.output)
    if options.push_to_hub and accelerator.is_main_process:
        push_to_hub(options.output, [*files, "recipe.yaml"], options.push_to_hub)
    accelerator.end_training()


def _load_recipe(options: TrainingOptions) -> tuple[Recipe, str]:
    """Load the recipe; return it and where its weights come from."""
    changes = [] if options.init is None else [f"training.init={json.dumps(options.init)}"]
    recipe = load_recipe(options.recipe, [*options.overrides, *changes])
    if recipe.training.init is None:
        raise ValueError(
            f"recipe {options.recipe} starts from another model: expected --init with a directory or Hub id (the "
            "released models started from the COCO checkpoint with the same backbone; a Mask2Former works, too), "
            "'backbone' or 'scratch'"
        )
    return recipe, recipe.training.init


def _create_accelerator(recipe: Recipe, options: TrainingOptions) -> Accelerator:
    if options.report_to and options.report_to not in {str(name) for name in get_available_trackers()}:
        raise ValueError(f"--report-to {options.report_to}: Accelerate has no such tracker, or its package is missing")
    accelerator = Accelerator(
        cpu=options.cpu,
        mixed_precision=choose_precision(recipe.training.mixed_precision, options.cpu),
        log_with=options.report_to,
        project_config=ProjectConfiguration(
            project_dir=str(options.output), logging_dir=str(options.output / "trackers")
        ),
        # The main process reads annotations and scores results while the others wait.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
    )
    accelerator.gradient_accumulation_steps = 1  # the loop divides the loss by its micro-batches
    return accelerator


def _check_output(record: RunRecord, overwrite: bool) -> None:
    """Refuse an output directory of something else, which the training would write over, or of another training."""
    output = record.path.parent
    check_writable(output)
    if not (overwrite and record.path.is_file()):
        record.matches_or_is_new(("checkpoints", "log.jsonl", "recipe.yaml", *MODEL_FILES))


def _remove_earlier_training(accelerator: Accelerator, output: Path) -> None:
    """Remove what an earlier training wrote, and nothing else; the record goes last."""
    if accelerator.is_main_process:
        Checkpoints(output / "checkpoints", keep=1).remove()
        for folder in (*(output / "evaluation").glob("step-" + "[0-9]" * 9), output / "trackers" / TRACKER):
            remove_folder(folder)
        for name in ("log.jsonl", "recipe.yaml", "run.json"):
            (output / name).unlink(missing_ok=True)
    accelerator.wait_for_everyone()


def _read_split(options: TrainingOptions, id2label: dict[int, str]) -> Split | None:
    if options.eval_json is None or options.eval_images is None:
        return None
    split = read_split(options.eval_json, options.eval_images, options.follow_links)
    if not split.annotated:
        raise ValueError(f"{options.eval_json} has no annotations to score against")
    check_split(split, id2label)
    return split


def _record(recipe: Recipe, sources: Sequence[Source], output: Path) -> RunRecord:
    inputs = {
        **recipe.to_dict(),
        "sources": {source.data.name: source.num_rows for source in sources},
        "classes": list(sources[0].data.id2label.values()),
    }
    return RunRecord(output / "run.json", inputs, _FREE)


def _start_trackers(accelerator: Accelerator, recipe: Recipe) -> None:
    values = flatten(recipe.to_dict())  # TensorBoard takes neither mappings nor lists
    config = {name: value if isinstance(value, int | float | str) else str(value) for name, value in values.items()}
    accelerator.init_trackers(TRACKER, config=config)


def _log_start(trainer: Trainer, sources: Sequence[Source], resumed: bool) -> None:
    accelerator = trainer.accelerator
    counts = (counted(source.num_rows, "row") if source.num_rows else "streamed rows" for source in sources)
    rows = ", ".join(f"{count} of {source.data.name}" for count, source in zip(counts, sources))
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    logger.info(
        f"{'continuing after' if resumed else 'starting at'} step {trainer.step} of {trainer.settings.steps}: {rows}; "
        f"{parameters / 1e6:.2f} M parameters to train; clips per step: {trainer.settings.batch_size}; "
        f"micro-batches: {trainer.options.micro_batches}; {counted(accelerator.num_processes, 'process')} on "
        f"{accelerator.device.type} in {_PRECISIONS.get(accelerator.mixed_precision, accelerator.mixed_precision)}"
    )


__all__ = ["train"]

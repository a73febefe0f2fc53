"""The sections of a recipe, their fields and their limits."""

from collections.abc import Collection
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError
from transformers.processing_utils import VideosKwargs

from ..configuration_vita import VitaConfig
from ..data.clips.settings import ClipSettings, Settings
from ..ops.rle import shorten

# `config_from_recipe` sets the labels and the evaluation's top_k from other sections.
MODEL_KEYS = {field.name for field in fields(VitaConfig)} - {"id2label", "label2id", "evaluation_top_k"}
# The fields of `VitaVideoProcessorKwargs`, which lies above this module.
PROCESSOR_KEYS = {*VideosKwargs.__annotations__, "size_divisor", "padding", "decoder"}
_Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainingSettings(Settings):
    """
    How a model is optimized. The defaults are VITA's; a recipe sets the rest.

    Attributes:
        steps: Optimizer steps of the whole training.
        batch_size: Clips per step, over all processes and accumulated micro-batches.
        learning_rate: Peak learning rate of AdamW.
        backbone_multiplier: Factor on the learning rate of the backbone.
        learning_rate_steps, learning_rate_gamma: At each of these steps, the learning rate is multiplied by this
        factor.
        warmup_steps, warmup_factor: Number of warmup steps, and the fraction of the learning rate at which the linear
        warmup starts.
        weight_decay: Weight decay of all parameters but norm layers, embeddings and relative position biases.
        betas, epsilon: Parameters of AdamW.
        max_grad_norm: Limit on the norm of the gradient of all parameters together; 0 for no limit.
        mixed_precision: "no", "bf16", "fp16" (as in the paper), or "auto": bf16 if the device supports it, else "no".
        init: Initial weights: "scratch"; "backbone" (pretrained by timm or transformers); or a directory or Hub id of
            a VITA or Mask2Former model.
        seed: Seed of all random numbers.
        save_dtype: Dtype in which the final weights are saved; the model loads as float32 regardless.
    """

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: NonNegativeFloat
    backbone_multiplier: NonNegativeFloat = 0.1
    learning_rate_steps: Annotated[tuple[int, ...], Field(strict=False)] = ()
    learning_rate_gamma: NonNegativeFloat = 0.1
    warmup_steps: NonNegativeInt = 10
    warmup_factor: NonNegativeFloat = 1.0
    weight_decay: NonNegativeFloat = 0.05
    betas: Annotated[tuple[_Beta, _Beta], Field(strict=False)] = (0.9, 0.999)
    epsilon: NonNegativeFloat = 1e-8
    max_grad_norm: NonNegativeFloat = 0.01
    # YAML 1.1 reads an unquoted no as false.
    mixed_precision: Annotated[
        Literal["auto", "no", "bf16", "fp16"], BeforeValidator(lambda value: "no" if value is False else value)
    ] = "auto"
    init: str | None = None
    seed: NonNegativeInt = 0
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    def learning_rate_factor(self, step: int) -> float:
        """Return the factor on the learning rate at a step, counted from 0."""
        factor = self.learning_rate_gamma ** sum(step >= drop for drop in self.learning_rate_steps)
        if step < self.warmup_steps:
            factor *= self.warmup_factor + (1 - self.warmup_factor) * step / self.warmup_steps
        return factor


class SourceSettings(Settings):
    """A dataset to train on: how often its clips are drawn, and the fields that differ from the recipe's `clips`."""

    dataset: str
    weight: NonNegativeFloat = 1.0
    clips: ClipSettings | None = None


class DataSettings(Settings):
    """The dataset whose categories a model learns, and the datasets to train on."""

    dataset: str | None = None  # a name of `vita_hf.data.categories`
    train: Annotated[tuple[SourceSettings, ...], Field(strict=False)] = ()


class EvaluationSettings(Settings):
    """How a model is scored: with `top_k` predictions per video, as the dataset's benchmark prescribes."""

    top_k: PositiveInt = 10


def _one_of(names: Collection[str]) -> BeforeValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"no such key; expected one of {', '.join(sorted(names))}")
        return name

    return BeforeValidator(check)


class Recipe(Settings):
    """
    Everything that determines a training run, except its data files.

    The dictionaries `model` and `processor` hold fields of [`VitaConfig`] and of [`VitaVideoProcessor`].
    """

    data: DataSettings
    clips: ClipSettings
    training: TrainingSettings
    model: dict[Annotated[str, _one_of(MODEL_KEYS)], Any] = {}
    processor: dict[Annotated[str, _one_of(PROCESSOR_KEYS)], Any] = {}
    evaluation: EvaluationSettings = EvaluationSettings()

    @classmethod
    def from_dict(cls, sections: Any) -> "Recipe":
        """
        Build a recipe from its sections as plain dictionaries.

        Raises:
            ValueError: if a section, key or value is wrong; the message names each by its dotted name.
        """
        try:
            return cls.model_validate(sections)
        except ValidationError as error:
            raise ValueError("; ".join(map(_describe, error.errors()))) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the values that the recipe sets, without defaults, as plain dictionaries, lists and numbers."""
        return self.model_dump(mode="json", exclude_unset=True)

    def clips_of(self, source: SourceSettings) -> ClipSettings:
        """Return the recipe's `clips`, changed by those of a source."""
        changes = source.clips.model_dump(exclude_unset=True) if source.clips else {}
        return ClipSettings(**self.clips.model_dump() | changes)


def _describe(error: Any) -> str:
    """Describe one of pydantic's errors, for example `training.steps: expected a valid integer, got '5'`."""
    name = ""
    for part in error["loc"]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if part != "[key]" else ""
    name = name.removeprefix(".")
    if error["type"] == "extra_forbidden":
        return f"{name}: no such key"
    if error["type"] == "missing":
        return f"{name}: missing" + (" (see the key `base`)" if len(error["loc"]) == 1 else "")
    if error["type"] == "value_error":
        return f"{name}: {error['ctx']['error']}"
    return f"{name}: {error['msg'].replace('Input should be', 'expected')}, got {shorten(error['input'])}"

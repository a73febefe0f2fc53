"""The `training` section of a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

PRECISIONS = ("auto", "no", "bf16", "fp16")
SAVE_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """
    How a model is optimised. The defaults are VITA's; a recipe gives the rest.

    Attributes:
        steps: Optimiser steps of the whole training.
        batch_size: Clips in a step, over all processes and accumulated micro-batches.
        learning_rate: Peak learning rate of AdamW.
        backbone_multiplier: The backbone's learning rate is this times the others'.
        learning_rate_steps: The learning rate is multiplied by `learning_rate_gamma` at these steps; the step itself is
            the first at the lower rate.
        learning_rate_gamma: See there.
        warmup_steps, warmup_factor: Over the first steps the rate grows linearly from `warmup_factor` times its value.
        weight_decay: Of everything but norm layers, embeddings and relative position biases.
        betas, epsilon: AdamW's.
        max_grad_norm: The gradient of all parameters together is scaled down to at most this norm; 0 for no limit.
        mixed_precision: "no", "bf16", "fp16" (with a gradient scaler, as the paper), or "auto": bf16 on devices that
            have it, else none.
        init: Where the weights come from: "scratch"; "backbone" (the recipe's backbone as timm or transformers trained
            it); or a directory or Hub id of a VITA or Mask2Former model.
        seed: What everything random follows from.
        save_dtype: Of the final model's file. The model loads as float32 in any case.

    Raises:
        ValueError: a value that can't work, or a key that doesn't exist; the message names it.
    """

    steps: int
    batch_size: int
    learning_rate: float
    backbone_multiplier: float = 0.1
    learning_rate_steps: Sequence[int] = ()
    learning_rate_gamma: float = 0.1
    warmup_steps: int = 10
    warmup_factor: float = 1.0
    weight_decay: float = 0.05
    betas: Sequence[float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_grad_norm: float = 0.01
    mixed_precision: str = "auto"
    init: str | None = None
    seed: int = 0
    save_dtype: str = "float32"

    def __post_init__(self):
        for name, kind in (("steps", 1), ("batch_size", 1), ("warmup_steps", 0), ("seed", 0)):
            value = getattr(self, name)
            self._require(isinstance(value, int) and value >= kind, name, f"an integer of at least {kind}")
        numbers = ("learning_rate", "backbone_multiplier", "learning_rate_gamma", "warmup_factor", "epsilon")
        for name in (*numbers, "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            self._require(number and value >= 0, name, "a number of at least 0")
        for name in ("learning_rate_steps", "betas"):
            value = getattr(self, name)
            self._require(isinstance(value, list | tuple), name, "a list of numbers")
            object.__setattr__(self, name, tuple(value))  # from YAML they are lists
        self._require(
            all(isinstance(step, int) for step in self.learning_rate_steps), "learning_rate_steps", "integers"
        )
        fine = len(self.betas) == 2 and all(isinstance(b, int | float) and 0 <= b < 1 for b in self.betas)
        self._require(fine, "betas", "two numbers in [0, 1)")
        self._require(self.mixed_precision in PRECISIONS, "mixed_precision", f"one of {', '.join(PRECISIONS)}")
        self._require(self.save_dtype in SAVE_DTYPES, "save_dtype", f"one of {', '.join(SAVE_DTYPES)}")
        self._require(
            self.init is None or isinstance(self.init, str), "init", "'scratch', 'backbone', a directory or a Hub id"
        )

    def _require(self, condition: bool, name: str, expected: str) -> None:
        if not condition:
            raise ValueError(f"training.{name}: expected {expected}, got {getattr(self, name)!r}")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "TrainingSettings":
        """From a recipe's `training` section."""
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(settings.keys() - known.keys())
        if unknown:
            raise ValueError(f"training.{unknown[0]}: no such setting; expected one of {', '.join(known)}")
        missing = sorted({"steps", "batch_size", "learning_rate"} - settings.keys())
        if missing:
            raise ValueError(f"training.{missing[0]}: missing")
        if settings.get("mixed_precision") is False:  # what YAML makes of an unquoted no
            settings = {**settings, "mixed_precision": "no"}
        return cls(**settings)

    def learning_rate_factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step, counted from 0."""
        factor = self.learning_rate_gamma ** sum(step >= drop for drop in self.learning_rate_steps)
        if step < self.warmup_steps:
            factor *= self.warmup_factor + (1 - self.warmup_factor) * step / self.warmup_steps
        return factor


__all__ = ["TrainingSettings"]

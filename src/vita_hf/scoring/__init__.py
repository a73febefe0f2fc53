"""Scores of predicted tracks against annotated ones; usable without `evaluate`."""

from .evaluator import VisEvaluator
from .ground_truth import GroundTruth
from .validation import InvalidInputError

__all__ = ["GroundTruth", "InvalidInputError", "VisEvaluator"]

"""Scores of predicted tracks against annotated ones; usable without `evaluate`."""

from ..data.annotations import InvalidInputError
from .evaluator import VisEvaluator
from .ground_truth import GroundTruth

__all__ = ["GroundTruth", "InvalidInputError", "VisEvaluator"]

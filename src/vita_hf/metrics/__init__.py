"""Metrics: `VIS_AP` is what `evaluate.load` takes, `VisEvaluator` the same engine without `evaluate`."""

from pathlib import Path

from .vis_ap.engine import VisEvaluator
from .vis_ap.ground_truth import GroundTruth
from .vis_ap.validation import InvalidInputError

VIS_AP = str(Path(__file__).resolve().parent / "vis_ap")

__all__ = ["VIS_AP", "GroundTruth", "InvalidInputError", "VisEvaluator"]

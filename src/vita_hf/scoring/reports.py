"""Summarize the scores of the categories: numbers, tables and explanations."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..data.annotations.values import id_order, some
from .average_precision import (
    AREA_RANGES,
    FILTERS,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    OCCLUSION_RANGES,
    CategoryScores,
    Detections,
    Objects,
    describe_objects,
    score_category,
)
from .ground_truth import GroundTruth, Instance

logger = logging.getLogger(__name__)


class ScoreReports:
    """
    The scores, tables and explanations of [`VisEvaluator`].

    Args:
        ground_truth: The videos and objects to score against.

    Attributes:
        detections: The predictions by video id and category id.
        counts: The numbers of "predictions" and "empty" predictions by video id.
    """

    def __init__(self, ground_truth: GroundTruth):
        self.ground_truth = ground_truth
        self.detections: dict[Any, dict[Any, Detections]] = {}
        self.counts: dict[Any, Counter] = {}

    def compute(self) -> dict[str, Any]:
        """
        Score everything added or merged so far. More can be added afterwards.

        Returns:
            Fractions in [0, 1], or −1 if the annotations have no object to find: `AP`, `AP50`, `AP75`, `APs`, `APm`,
            `APl`, `AR1`, `AR10`, `AR100`, `ARs`, `ARm`, `ARl`; `AP_slight`, `AP_moderate` and `AP_heavy` if any
            annotation has `occlusion`; and `per_category`, the AP by category name.
        """
        scores = self._score_categories()
        result: dict[str, Any] = _average(scores.values())
        if any(instance.occlusion is not None for _, _, instance in self.ground_truth):
            for name in OCCLUSION_RANGES:
                result[f"AP_{name}"] = _mean(s.precision[FILTERS.index(name)] for s in scores.values())
        names = self.ground_truth.category_names()
        result["per_category"] = {names[key]: _mean([s.precision[0]]) for key, s in scores.items()}
        if result["AP"] <= 0:
            logger.warning("AP is %g: %s", result["AP"], self.explain_zero())
        return result

    def category_table(self) -> list[dict[str, Any]]:
        """
        Return a row for each category.

        Returns:
            Dicts of `id`, `name`, `objects` (crowds left out), `predictions` (those that can count, at most 100 per
            video), and the twelve numbers of `compute`.
        """
        names = self.ground_truth.category_names()
        objects = Counter(category for _, category, instance in self.ground_truth if not instance.is_crowd)
        predictions = Counter()
        for by_category in self.detections.values():
            predictions.update({category: len(each.scores) for category, each in by_category.items()})
        return [
            {"id": key, "name": names[key], "objects": objects[key], "predictions": predictions[key], **_average([s])}
            for key, s in self._score_categories().items()
        ]

    def video_table(self) -> list[dict[str, Any]]:
        """
        Return a row for each video, the worst first and those without objects last.

        Returns:
            Dicts of `id`, `objects` (crowds left out), `predictions`, `AP` (of this video alone, over the categories of
            its objects) and `mean_best_iou` (the mean, over the objects, of the best IoU with a prediction of the same
            category). Both scores are −1 without any object.
        """
        rows = []
        for key, video in self.ground_truth.videos.items():
            best_ious: list[float] = []
            for category, instances in video.instances.items():
                best = self.ious(key, category).max(axis=0, initial=0.0).tolist()
                best_ious += [iou for iou, instance in zip(best, instances) if not instance.is_crowd]
            rows.append(
                {
                    "id": key,
                    "objects": len(best_ious),
                    "predictions": self.counts[key]["predictions"] if key in self.counts else 0,
                    "AP": _mean(s.precision[0] for s in self._score_categories([key]).values()),
                    "mean_best_iou": sum(best_ious) / len(best_ious) if best_ious else -1.0,
                }
            )
        return sorted(rows, key=lambda row: (not row["objects"], row["AP"], row["mean_best_iou"]))

    def ious(self, video_id: Any, category_id: Any) -> np.ndarray:
        """
        Return the IoUs of a video's predictions of a category with its objects.

        Returns:
            Float64 array (D, G): the up to 100 best predictions, best first, and the objects in the file's order.
        """
        detections = self.detections.get(video_id, {}).get(category_id)
        if detections is None:
            return np.zeros((0, len(self.ground_truth.videos[video_id].instances.get(category_id, ()))))
        return detections.ious.copy()

    def explain_zero(self) -> str:
        """Explain an AP of 0 or −1, as far as the input shows the reason."""
        objects = [(video.id, category) for video, category, instance in self.ground_truth if not instance.is_crowd]
        if not objects:
            return "the annotations have no objects to find (none at all, or only crowds)"
        total = sum(self.counts.values(), Counter())
        if not total["predictions"]:
            return "there are no predictions"
        if total["empty"] == total["predictions"]:
            return f"the masks of all {total['predictions']} predictions are empty"
        videos, categories = ({*column} for column in zip(*objects))
        if not videos & self.detections.keys():
            return (
                "no prediction is in a video with annotated objects: predictions are in videos "
                f"{some(self.detections)}, objects in {some(sorted(videos, key=id_order))}"
            )
        pairs = {(key, category) for key, by_category in self.detections.items() for category in by_category}
        ious = [self.ious(*pair) for pair in pairs & {*objects}]
        if not ious:
            predicted = {category for _, category in pairs}
            return (
                "no prediction has the category of an object in the same video: predicted are categories "
                f"{some(sorted(predicted, key=id_order))}, annotated {some(sorted(categories, key=id_order))} "
                "(labels counted from 0 instead of the file's ids?)"
            )
        best = max(table.max(initial=0.0) for table in ious)
        if best < IOU_THRESHOLDS[0]:
            return (
                f"the best overlap (IoU over all frames) of a prediction with an object of its category is {best:.3f}, "
                f"below {IOU_THRESHOLDS[0]:g} (masks of another size, of other frames, or shifted in time?)"
            )
        return f"matches exist (best IoU {best:.3f}), but only with ignored objects or of ignored predictions"

    def _score_categories(self, videos: Iterable[Any] | None = None) -> dict[Any, CategoryScores]:
        """Score the categories in ascending order of their ids: all, or those that the given videos have."""
        categories = self.ground_truth.categories
        by_category: dict[Any, list] = {category: [] for category in (categories if videos is None else ())}
        videos = {*self.ground_truth.videos, *self.detections} if videos is None else videos
        # Ascending ids, as in the official scorers: they decide between equal scores in different videos.
        for key in sorted(videos, key=id_order):
            predicted, video = self.detections.get(key, {}), self.ground_truth.videos.get(key)
            instances = video.instances if video else {}
            for category in {**predicted, **instances}:
                # A list of annotations may not name the category of a prediction, which then cannot be scored.
                if category in categories:
                    objects = _describe(instances[category]) if category in instances else None
                    by_category.setdefault(category, []).append((predicted.get(category), objects))
        return {category: score_category(by_category[category]) for category in sorted(by_category, key=id_order)}


def _describe(instances: list[Instance]) -> Objects:
    return describe_objects(
        [instance.mean_area for instance in instances],
        [np.nan if instance.occlusion is None else instance.occlusion for instance in instances],
        [instance.is_crowd for instance in instances],
    )


def _average(scores: Iterable[CategoryScores]) -> dict[str, float]:
    """Average the scores of some categories to the twelve numbers that COCO reports."""
    scores = list(scores)
    result = {
        "AP": _mean(s.precision[0] for s in scores),
        "AP50": _mean(s.precision[0, 0] for s in scores),
        "AP75": _mean(s.precision[0, 5] for s in scores),
    }
    sizes = list(AREA_RANGES)[1:]
    for name in sizes:
        result[f"AP{name[0]}"] = _mean(s.precision[FILTERS.index(name)] for s in scores)
    for index, limit in enumerate(MAX_DETECTIONS):
        result[f"AR{limit}"] = _mean(s.recall[index, 0] for s in scores)
    for name in sizes:
        result[f"AR{name[0]}"] = _mean(s.recall[-1, FILTERS.index(name)] for s in scores)
    return result


def _mean(values: Iterable[np.ndarray]) -> float:
    """Average the values that are not −1; returns −1 if there are none."""
    flat = np.concatenate([np.empty(0), *map(np.ravel, values)])
    flat = flat[flat > -1]
    return float(flat.mean()) if flat.size else -1.0

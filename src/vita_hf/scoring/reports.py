"""The numbers, tables and explanations that the scores of the categories are summarised to."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..data.annotations.values import id_order, some
from .ground_truth import GroundTruth, ScoredVideo
from .matching import (
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

DetectionsByVideo = Mapping[Any, Mapping[Any, Detections]]  # by video id and category id


def score_categories(
    truth: GroundTruth, detections: DetectionsByVideo, videos: Iterable[Any]
) -> dict[Any, CategoryScores]:
    """Score the categories over the videos with the given ids; returns scores by category id, in ascending order."""
    by_category: dict[Any, list] = {category: [] for category in truth.categories}
    # Ascending ids, as in the official scorers: they decide between equal scores in different videos.
    for key in sorted(videos, key=id_order):
        predicted, video = detections.get(key, {}), truth.videos.get(key)
        for category in {**predicted, **(video.instances if video else {})}:
            # A list of annotations may not name the category of a prediction, which then has nothing to be scored with.
            if category in by_category:
                by_category[category].append((predicted.get(category), _describe(video, category)))
    return {category: score_category(pairs) for category, pairs in by_category.items()}


def _describe(video: ScoredVideo | None, category: Any) -> Objects | None:
    instances = video.instances.get(category) if video else None
    if not instances:
        return None
    return describe_objects(
        [instance.mean_area for instance in instances],
        [np.nan if instance.occlusion is None else instance.occlusion for instance in instances],
        [instance.is_crowd for instance in instances],
    )


def summarize(truth: GroundTruth, scores: Mapping[Any, CategoryScores]) -> dict[str, Any]:
    """Return the result of [`VisEvaluator.compute`]."""
    result: dict[str, Any] = average(scores.values())
    if any(instance.occlusion is not None for _, _, instance in truth):
        for name in OCCLUSION_RANGES:
            result[f"AP_{name}"] = _mean(s.precision[FILTERS.index(name)] for s in scores.values())
    names = truth.category_names()
    result["per_category"] = {names[key]: _mean([s.precision[0]]) for key, s in scores.items()}
    return result


def average(scores: Iterable[CategoryScores]) -> dict[str, float]:
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


def category_table(
    truth: GroundTruth, detections: DetectionsByVideo, scores: Mapping[Any, CategoryScores]
) -> list[dict[str, Any]]:
    """Return the rows of [`VisEvaluator.category_table`]."""
    names = truth.category_names()
    objects = Counter(category for _, category, instance in truth if not instance.is_crowd)
    predictions = Counter()
    for by_category in detections.values():
        predictions.update({category: len(each.scores) for category, each in by_category.items()})
    return [
        {"id": key, "name": names[key], "objects": objects[key], "predictions": predictions[key], **average([s])}
        for key, s in scores.items()
    ]


def video_table(
    truth: GroundTruth, detections: DetectionsByVideo, counts: Mapping[Any, Counter]
) -> list[dict[str, Any]]:
    """Return the rows of [`VisEvaluator.video_table`]."""
    rows = []
    for key, video in truth.videos.items():
        predicted = detections.get(key, {})
        best_ious: list[float] = []
        for category, instances in video.instances.items():
            ious = predicted[category].ious if category in predicted else np.zeros((0, len(instances)))
            best = ious.max(axis=0, initial=0.0).tolist()
            best_ious += [iou for iou, instance in zip(best, instances) if not instance.is_crowd]
        scores = score_categories(truth, detections, [key])
        rows.append(
            {
                "id": key,
                "objects": len(best_ious),
                "predictions": counts[key]["predictions"] if key in counts else 0,
                "AP": _mean(s.precision[0] for s in scores.values()),
                "mean_best_iou": sum(best_ious) / len(best_ious) if best_ious else -1.0,
            }
        )
    return sorted(rows, key=lambda row: (not row["objects"], row["AP"], row["mean_best_iou"]))


def explain_zero(truth: GroundTruth, detections: DetectionsByVideo, counts: Mapping[Any, Counter]) -> str:
    """Explain an AP of 0 or −1, as far as the input shows the reason."""
    objects = [(video, category) for video, category, instance in truth if not instance.is_crowd]
    if not objects:
        return "the annotations have no objects to find (none at all, or only crowds)"
    total = sum(counts.values(), Counter())
    if not total["predictions"]:
        return "there are no predictions"
    if total["empty"] == total["predictions"]:
        return f"the masks of all {total['predictions']} predictions are empty"
    annotated = {video.id for video, _ in objects}
    if not annotated & detections.keys():
        return (
            f"no prediction is in a video with annotated objects: predictions are in videos {some(detections)}, "
            f"objects in {some(sorted(annotated, key=id_order))}"
        )
    pairs = {(video.id, category) for video, category in objects}
    tables = [each.ious for key, found in detections.items() for c, each in found.items() if (key, c) in pairs]
    if not tables:
        predicted = {category for by_category in detections.values() for category in by_category}
        return (
            "no prediction has the category of an object in the same video: predicted are categories "
            f"{some(sorted(predicted, key=id_order))}, annotated {some(sorted({c for _, c in objects}, key=id_order))} "
            "(labels counted from 0 instead of the file's ids?)"
        )
    best = max(table.max(initial=0.0) for table in tables)
    if best < IOU_THRESHOLDS[0]:
        return (
            f"the best overlap (IoU over all frames) of a prediction with an object of its category is {best:.3f}, "
            f"below {IOU_THRESHOLDS[0]:g} (masks of another size, of other frames, or shifted in time?)"
        )
    return f"matches exist (best IoU {best:.3f}), but only with ignored objects or of ignored predictions"

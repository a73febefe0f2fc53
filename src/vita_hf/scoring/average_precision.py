"""Compute average precision and recall from IoU tables: COCO's rules, for all thresholds and filters at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)

# Filters of objects: name → range of areas or occlusion scores, with both ends. Objects outside of it are ignored.
# Predictions outside of the range of areas are ignored unless they match; occlusion filters do not affect predictions.
AREA_RANGES = {
    "all": (0, 1e10),
    "small": (0, 128**2),
    "medium": (128**2, 256**2),
    "large": (256**2, 1e10),
}
OCCLUSION_RANGES = {"slight": (0, 0.25), "moderate": (0.25, 0.5), "heavy": (0.5, 1)}
FILTERS = (*AREA_RANGES, *OCCLUSION_RANGES)
_BOUNDS = np.array([*AREA_RANGES.values(), *OCCLUSION_RANGES.values()], np.float64)


class Detections(NamedTuple):
    """
    The predictions of one category in one video, by descending score; equal scores keep the order of their arrival.

    Attributes:
        scores: Float64 array (D,).
        areas: Float64 array (D,): the mean of each prediction's non-zero mask areas.
        ious: Float64 array (D, G): IoUs with the category's objects in the video, in the file's order.
    """

    scores: np.ndarray
    areas: np.ndarray
    ious: np.ndarray

    def join(self, other: "Detections") -> "Detections":
        """Merge with later predictions, and keep those that can count."""
        columns = [np.concatenate(pair) for pair in zip(self, other)]
        order = np.argsort(-columns[0], kind="stable")[: MAX_DETECTIONS[-1]]
        return Detections(*(column[order] for column in columns))


class Objects(NamedTuple):
    """
    The annotated objects of one category in one video.

    Attributes:
        is_crowd: Bool array (G,).
        is_ignored: Bool array (F, G) by filter; crowds are always ignored.
    """

    is_crowd: np.ndarray
    is_ignored: np.ndarray


class CategoryScores(NamedTuple):
    """
    The scores of one category; −1 where a filter leaves no object.

    Attributes:
        precision: Float64 array (F, T): the mean over the recall points, by filter and IoU threshold, with at most 100
            predictions per video.
        recall: Float64 array (M, F, T), by the number of predictions per video, filter and threshold.
    """

    precision: np.ndarray
    recall: np.ndarray


def describe_objects(areas: Sequence[float], occlusions: Sequence[float], is_crowd: Sequence[bool]) -> Objects:
    """
    Apply the filters to the G objects of one category in one video.

    Args:
        areas: G mean areas in pixels.
        occlusions: G scores from 0 to 1; NaN if unknown, which every occlusion filter ignores.
        is_crowd: G flags.
    """
    crowd = np.asarray(is_crowd, bool)
    values = np.empty((len(FILTERS), len(crowd)))
    values[: len(AREA_RANGES)], values[len(AREA_RANGES) :] = areas, occlusions
    inside = (_BOUNDS[:, :1] <= values) & (values <= _BOUNDS[:, 1:])
    return Objects(crowd, ~inside | crowd)


def match(ious: np.ndarray, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """
    Match predictions with objects: in the order of their scores, each takes the free object of the highest IoU.

    Objects that count are preferred to ignored ones; of equal IoUs the later object in the file wins; a crowd can be
    matched any number of times.

    Args:
        ious: Float64 array (D, G), predictions by descending score.
        objects: The G objects.

    Returns:
        Two bool arrays (F, T, D): whether each prediction is matched, and whether it is matched with an ignored object.
    """
    num_predictions, num_objects = ious.shape
    shape = len(objects.is_ignored), len(IOU_THRESHOLDS)
    matched = np.zeros((*shape, num_predictions), bool)
    to_ignored = np.zeros_like(matched)
    if not num_objects:
        return matched, to_ignored
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    if num_objects == 1:  # the common case: the first prediction above the threshold takes it; a crowd takes them all
        fits = ious[:, 0] >= thresholds[:, None]
        matched[:] = fits if objects.is_crowd[0] else fits & (np.cumsum(fits, axis=1) == 1)
        return matched, matched & objects.is_ignored[:, :, None]
    is_free = np.ones((*shape, num_objects), bool)
    counts = ~objects.is_ignored[:, None]
    filters = np.arange(len(counts))[:, None]
    for prediction in np.flatnonzero(ious.max(axis=1) >= thresholds[0]):
        row = ious[prediction]
        best_first = np.argsort(row, kind="stable")[::-1]
        fits = is_free & (row >= thresholds[:, None])
        preferred = fits & counts
        fits = np.where(preferred.any(axis=-1, keepdims=True), preferred, fits)[..., best_first]
        chosen = best_first[fits.argmax(axis=-1)]
        has_match = fits.any(axis=-1)
        matched[..., prediction] = has_match
        to_ignored[..., prediction] = has_match & objects.is_ignored[filters, chosen]
        taken = (*np.nonzero(has_match), chosen[has_match])
        is_free[taken] = objects.is_crowd[taken[-1]]
    return matched, to_ignored


def score_category(videos: Sequence[tuple[Detections | None, Objects | None]]) -> CategoryScores:
    """
    Compute precision and recall of one category.

    Args:
        videos: The predictions and objects of each video that has any. Of equal scores in different videos, those of
            the earlier video rank first.
    """
    shape = len(FILTERS), len(IOU_THRESHOLDS)
    precision, recall = np.full(shape, -1.0), np.full((len(MAX_DETECTIONS), *shape), -1.0)
    num_objects: Any = sum((~objects.is_ignored).sum(axis=1) for _, objects in videos if objects is not None)
    # Most occlusion levels and some sizes have no object, and need no matching.
    active = np.flatnonzero(num_objects)
    if active.size:
        num_objects = num_objects[active]
        ranks, hits, misses = _rank_matches(videos, active)
        for row, limit in zip(recall, MAX_DETECTIONS):
            row[active] = (hits & (ranks < limit)).sum(axis=-1) / num_objects[:, None]
        precision[active] = _mean_precision(hits, misses, num_objects)
    return CategoryScores(precision, recall)


def _rank_matches(
    videos: Sequence[tuple[Detections | None, Objects | None]], active: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Match the N predictions of all videos, and sort them by descending score.

    Args:
        videos: Predictions and objects of each video.
        active: Int array (F,): the filters to match with.

    Returns:
        ranks: Int array (N,): the rank of each prediction in its video, from 0.
        hits, misses: Bool arrays (F, T, N): true and false positives; ignored predictions are neither.
    """
    predicted = [(detections, objects) for detections, objects in videos if detections is not None]
    counts = np.array([len(detections.scores) for detections, _ in predicted], int)
    ends = np.cumsum(counts)
    scores = np.concatenate([np.empty(0), *(detections.scores for detections, _ in predicted)])
    areas = np.concatenate([np.empty(0), *(detections.areas for detections, _ in predicted)])
    matched = np.zeros((active.size, len(IOU_THRESHOLDS), scores.size), bool)
    ignored = np.zeros_like(matched)
    for row, index in enumerate(active):
        if FILTERS[index] in AREA_RANGES:
            low, high = AREA_RANGES[FILTERS[index]]
            ignored[row] = (areas < low) | (areas > high)
    for (detections, objects), start, end in zip(predicted, (ends - counts).tolist(), ends.tolist()):
        if objects is not None:
            hit, to_ignored = match(detections.ious, Objects(objects.is_crowd, objects.is_ignored[active]))
            matched[..., start:end] = hit
            ignored[..., start:end] = np.where(hit, to_ignored, ignored[..., start:end])
    order = np.argsort(-scores, kind="stable")
    ranks = np.arange(scores.size) - np.repeat(ends - counts, counts)
    matched, counted = matched[..., order], ~ignored[..., order]
    return ranks[order], matched & counted, ~matched & counted


def _mean_precision(hits: np.ndarray, misses: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """
    Average, over the recall points, the best precision at that recall or a higher one.

    Args:
        hits, misses: Bool arrays (F, T, N), highest score first.
        num_objects: Int array (F,), all positive.

    Returns:
        Float64 array (F, T).
    """
    if not hits.shape[-1]:
        return np.zeros(hits.shape[:2])
    num_hits, num_misses = np.cumsum(hits, axis=-1), np.cumsum(misses, axis=-1)
    precision = num_hits / (num_hits + num_misses + np.spacing(1))
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    # A recall point is reached with the n-th hit, where n is the same for all thresholds; point 0 with the first entry.
    needed = np.stack([np.searchsorted(np.arange(n + 1) / n, RECALLS) for n in num_objects])[:, None]
    total_hits = num_hits[..., -1:]
    # The positions of all hits, row after row, and one entry more so that the list is never empty.
    positions = np.append(np.nonzero(hits)[-1], 0)
    before = (np.cumsum(total_hits) - total_hits.reshape(-1)).reshape(total_hits.shape)
    places = np.where(needed > 0, positions.take(before + needed - 1, mode="clip"), 0)
    reached = np.where(needed <= total_hits, np.take_along_axis(precision, places, axis=-1), 0.0)
    return reached.mean(axis=-1)

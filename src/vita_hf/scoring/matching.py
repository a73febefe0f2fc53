"""From IoU tables to average precision and recall: COCO's rules, for all thresholds and filters at once."""

from typing import NamedTuple

import numpy as np

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)

# Ground-truth filters: name → (area range, occlusion range), inclusive at both ends. Objects outside are ignored.
# Predictions outside the area range are ignored too unless they match; occlusion filters leave predictions alone.
AREA_RANGES = {
    "all": (0, 1e10),
    "small": (0, 128**2),
    "medium": (128**2, 256**2),
    "large": (256**2, 1e10),
}
OCCLUSION_RANGES = {"slight": (0, 0.25), "moderate": (0.25, 0.5), "heavy": (0.5, 1)}
FILTERS = (*AREA_RANGES, *OCCLUSION_RANGES)
_BOUNDS = np.array([*AREA_RANGES.values(), *OCCLUSION_RANGES.values()], np.float64)


class Group(NamedTuple):
    """Predictions of one category in one video, highest score first, equal scores in the order of their arrival.

    Attributes:
        scores: `(D,)` float64.
        areas: `(D,)` float64, mean of each prediction's non-zero mask areas.
        ious: `(D, G)` float64 with the category's objects in the video, in the file's order.
    """

    scores: np.ndarray
    areas: np.ndarray
    ious: np.ndarray

    def join(self, other: "Group") -> "Group":
        """Both, cut to as many as can count; at equal scores the first group's come first."""
        columns = [np.concatenate(pair) for pair in zip(self, other)]
        order = np.argsort(-columns[0], kind="stable")[: MAX_DETECTIONS[-1]]
        return Group(*(column[order] for column in columns))


class Objects(NamedTuple):
    """Annotated objects of one category in one video.

    Attributes:
        is_crowd: `(G,)` bool.
        is_ignored: `(F, G)` bool, by filter, crowds included.
    """

    is_crowd: np.ndarray
    is_ignored: np.ndarray


class CategoryScores(NamedTuple):
    """Results of one category, −1 where a filter leaves no object.

    Attributes:
        precision: `(F, T)` mean over recall points, by filter and IoU threshold, at most 100 predictions a video.
        recall: `(M, F, T)` by number of predictions a video, filter and threshold.
    """

    precision: np.ndarray
    recall: np.ndarray


def describe_objects(areas, occlusions, is_crowd) -> Objects:
    """Applies the filters to the G objects of one category in one video.

    Args:
        areas: `(G,)` mean areas in pixels.
        occlusions: `(G,)` 0 to 1, NaN where unknown: such objects are ignored by all occlusion filters.
        is_crowd: `(G,)` bool.
    """
    crowd = np.asarray(is_crowd, bool)
    values = np.empty((len(FILTERS), len(crowd)))
    values[: len(AREA_RANGES)], values[len(AREA_RANGES) :] = areas, occlusions
    inside = (_BOUNDS[:, :1] <= values) & (values <= _BOUNDS[:, 1:])
    return Objects(crowd, ~inside | crowd)


def match(ious: np.ndarray, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Matches predictions to objects, best score first, each to the free object of highest IoU.

    An object that counts is preferred to any ignored one; at equal IoU the later one in the file wins; crowds are never
    used up.

    Args:
        ious: `(D, G)`, predictions in descending order of score.
        objects: the G objects.

    Returns:
        `(F, T, D)` bool: whether each prediction is matched, and whether it is so to an ignored object.
    """
    shape = len(objects.is_ignored), len(IOU_THRESHOLDS)
    num_predictions, num_objects = ious.shape
    matched = np.zeros((*shape, num_predictions), bool)
    to_ignored = np.zeros_like(matched)
    if not num_objects:
        return matched, to_ignored
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    if num_objects == 1:  # the common case: the first prediction that fits has it, a crowd has them all
        fits = ious[:, 0] >= thresholds[:, None]
        matched[:] = fits if objects.is_crowd[0] else fits & (np.cumsum(fits, axis=1) == 1)
        return matched, matched & objects.is_ignored[:, :, None]
    is_free = np.ones((*shape, num_objects), bool)
    counts = ~objects.is_ignored[:, None]
    rows = np.arange(len(counts))[:, None]
    for prediction in np.flatnonzero(ious.max(axis=1) >= thresholds[0]):
        row = ious[prediction]
        best_first = np.argsort(row, kind="stable")[::-1]
        fits = is_free & (row >= thresholds[:, None])
        preferred = fits & counts
        fits = np.where(preferred.any(axis=-1, keepdims=True), preferred, fits)[..., best_first]
        chosen = best_first[fits.argmax(axis=-1)]
        found = fits.any(axis=-1)
        matched[..., prediction] = found
        to_ignored[..., prediction] = found & objects.is_ignored[rows, chosen]
        filters, steps = np.nonzero(found)
        taken = chosen[filters, steps]
        is_free[filters, steps, taken] = objects.is_crowd[taken]
    return matched, to_ignored


def score_category(groups: list[tuple[Group | None, Objects | None]]) -> CategoryScores:
    """Precision and recall of one category.

    Args:
        groups: predictions and objects of each video that has any, in the videos' order: it decides between equal
            scores in different videos.
    """
    shape = len(FILTERS), len(IOU_THRESHOLDS)
    precision, recall = np.full(shape, -1.0), np.full((len(MAX_DETECTIONS), *shape), -1.0)
    num_objects = sum((~objects.is_ignored).sum(axis=1) for _, objects in groups if objects is not None)
    # Where no object is expected there is nothing to compute: mostly the occlusion levels and some sizes.
    active = np.flatnonzero(num_objects)
    if not active.size:
        return CategoryScores(precision, recall)
    num_objects = num_objects[active]

    predicted = [(group, objects) for group, objects in groups if group is not None]
    counts = np.array([len(group.scores) for group, _ in predicted], int)
    ends = np.cumsum(counts)
    scores = np.concatenate([np.empty(0), *(group.scores for group, _ in predicted)])
    areas = np.concatenate([np.empty(0), *(group.areas for group, _ in predicted)])
    matched = np.zeros((active.size, len(IOU_THRESHOLDS), scores.size), bool)
    ignored = np.zeros_like(matched)
    for row, index in enumerate(active):
        if FILTERS[index] in AREA_RANGES:
            low, high = AREA_RANGES[FILTERS[index]]
            ignored[row] = (areas < low) | (areas > high)
    for (group, objects), start, end in zip(predicted, (ends - counts).tolist(), ends.tolist()):
        if objects is not None:
            hit, to_ignored = match(group.ious, Objects(objects.is_crowd, objects.is_ignored[active]))
            matched[..., start:end] = hit
            ignored[..., start:end] = np.where(hit, to_ignored, ignored[..., start:end])

    order = np.argsort(-scores, kind="stable")
    rank = (np.arange(scores.size) - np.repeat(ends - counts, counts))[order]
    matched, counted = matched[..., order], ~ignored[..., order]
    true, false = matched & counted, ~matched & counted
    for row, limit in zip(recall, MAX_DETECTIONS):
        row[active] = (true & (rank < limit)).sum(axis=-1) / num_objects[:, None]
    precision[active] = _mean_precision(true, false, num_objects)
    return CategoryScores(precision, recall)


def _mean_precision(true: np.ndarray, false: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """Mean over the recall points of the precision reached at that recall or a higher one.

    Args:
        true, false: `(F, T, N)` bool, highest score first.
        num_objects: `(F,)`, at least one each.

    Returns:
        `(F, T)`.
    """
    if not true.shape[-1]:
        return np.zeros(true.shape[:2])
    hits, misses = np.cumsum(true, axis=-1), np.cumsum(false, axis=-1)
    precision = hits / (hits + misses + np.spacing(1))
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    # A recall point is reached at the n-th hit, where n is the same for every threshold; point 0 at the first entry.
    needed = np.stack([np.searchsorted(np.arange(n + 1) / n, RECALLS) for n in num_objects])[:, None]
    num_hits = hits[..., -1:]
    # Positions of all hits, row after row, with one entry more so that there always is one to look at.
    positions = np.append(np.nonzero(true)[-1], 0)
    before = (np.cumsum(num_hits) - num_hits.reshape(-1)).reshape(num_hits.shape)
    places = np.where(needed > 0, positions.take(before + needed - 1, mode="clip"), 0)
    reached = np.where(needed <= num_hits, np.take_along_axis(precision, places, axis=-1), 0.0)
    return reached.mean(axis=-1)

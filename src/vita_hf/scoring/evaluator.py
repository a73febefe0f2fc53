"""Average precision of video instance segmentation, as the YouTube-VIS and OVIS evaluation servers compute it."""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..ops.rle import RleError, decode_tracks, intersections
from .ground_truth import GroundTruth, Video, id_order, infer_size, load_json, read_masks
from .matching import (
    AREA_RANGES,
    FILTERS,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    OCCLUSION_RANGES,
    CategoryScores,
    Group,
    Objects,
    describe_objects,
    score_category,
)
from .validation import InvalidInputError, is_id, shorten, some

logger = logging.getLogger(__name__)

Prediction = dict[str, Any]
Predictions = str | os.PathLike | Prediction | list[Prediction]


class VisEvaluator:
    """Scores predicted tracks against annotated ones.

    Predictions are added as they come, in one go or video by video; of each video only IoU tables and scores are kept.
    Several processes each add their own videos and one of them merges the `state` of all: the result has the same
    digits whichever way the videos were split.

    Args:
        references: path of an annotation file in YouTube-VIS or OVIS form, its content, or the list of its annotations
            (see `GroundTruth`).

    Raises:
        InvalidInputError: the annotations are malformed; lists what is wrong, entry by entry.

    Example:
    ```py
    >>> evaluator = VisEvaluator("valid.json")
    >>> for predictions in one_video_after_the_other:
    ...     evaluator.add(predictions)
    >>> evaluator.compute()["AP"]
    ```
    """

    def __init__(self, references: str | os.PathLike | dict | list):
        # Decoding works in arrays of about a megabyte that come and go. glibc returns such blocks to the system at
        # once, which costs more than the work itself, until it has seen a larger one being freed. Never written to, so
        # that it takes no memory.
        np.empty(24 << 20, np.uint8)
        self.ground_truth = GroundTruth(references)
        self._unannotated: dict[Any, Video] = {}
        self._groups: dict[Any, dict[Any, Group]] = {}
        self._counts: dict[Any, Counter] = {}
        self._seen: dict[Any, set[int]] = {}
        self._fingerprint: str | None = None

    def add(self, predictions: Predictions) -> None:
        """Adds predictions, all of them or, if anything is wrong with one, none.

        Args:
            predictions: one prediction, a list of them for any number of videos, or the path of a json file with such a
                list. Each is `{"video_id", "category_id", "score", "segmentations"}`, with one RLE (compressed, or run
                lengths), list of polygons or `None` for each of the video's frames. Of equal scores in one video the
                one added first ranks first.

        Raises:
            InvalidInputError: lists what is wrong, naming entry, video, category and frame.
        """
        subject = "predictions"
        if isinstance(predictions, (str, os.PathLike)):
            subject, predictions = str(predictions), load_json(predictions, "a list of predictions")
        if isinstance(predictions, dict):
            predictions = [predictions]
        if not isinstance(predictions, (list, tuple)):
            raise InvalidInputError(subject, [f"expected a list of predictions, got {shorten(predictions)}"])

        problems: list[str] = []
        new_videos: dict[Any, Video] = {}
        by_video: dict[Any, list[tuple[str, Prediction]]] = {}
        for index, entry in enumerate(predictions):
            if not isinstance(entry, dict):
                problems.append(f"prediction {index}: expected an object, got {shorten(entry)}")
                continue
            name = f"prediction {index} (video {entry.get('video_id')}, category {entry.get('category_id')})"
            found = self._check(entry, new_videos)
            problems += [f"{name}: {problem}" for problem in found]
            if not found:
                by_video.setdefault(entry["video_id"], []).append((name, entry))
        results = []
        for key, entries in by_video.items():
            video = self._video(key) or new_videos[key]
            results.append((key, *self._score_video(video, entries, problems)))
        if problems:
            raise InvalidInputError(subject, problems)

        self._unannotated.update(new_videos)
        repeated: list[str] = []
        for key, groups, counts, tracks in results:
            mine = self._groups.setdefault(key, {})
            for category, group in groups.items():
                mine[category] = mine[category].join(group) if category in mine else group
            self._counts.setdefault(key, Counter()).update(counts)
            seen = self._seen.setdefault(key, set())
            for name, track in tracks:
                if track in seen:
                    repeated.append(name)
                seen.add(track)
        if repeated:
            logger.warning(
                "%d predictions repeat an earlier one (same video, category, score and masks); they are scored as they "
                "are, repetitions as false positives: %s",
                len(repeated),
                some(repeated, 5),
            )

    def forget(self, video_id: Any) -> None:
        """Takes back what was added for a video, say before adding its predictions once more."""
        for table in (self._groups, self._counts, self._seen):
            table.pop(video_id, None)

    @property
    def num_predictions(self) -> int:
        """Number of predictions added or merged so far."""
        return sum(counts["predictions"] for counts in self._counts.values())

    def _video(self, key: Any) -> Video | None:
        return self.ground_truth.videos.get(key) or self._unannotated.get(key)

    def _check(self, entry: Prediction, new_videos: dict[Any, Video]) -> list[str]:
        """What is wrong with a prediction, its masks aside."""
        try:
            category, key, score, masks = (entry[k] for k in ("category_id", "video_id", "score", "segmentations"))
        except KeyError:
            missing = [key for key in ("video_id", "category_id", "score", "segmentations") if key not in entry]
            return [f"it has no {', '.join(map(repr, missing))}"]
        problems = []
        truth = self.ground_truth
        if not is_id(category) or (truth.is_complete and category not in truth.categories):
            problems.append(
                f"category {shorten(category)} is not in the annotation file, expected one of {some(truth.categories)}"
            )
        try:
            if not math.isfinite(float(score)):
                problems.append(f"the score is {score}, expected a finite number")
        except (TypeError, ValueError):
            problems.append(f"the score is {shorten(score)}, expected a number")
        is_list = isinstance(masks, (list, tuple))
        if not is_list:
            problems.append(f"`segmentations`: expected a list with one entry a frame, got {shorten(masks)}")
        if not is_id(key) or (truth.is_complete and key not in truth.videos):
            problems.append(
                f"video id {shorten(key)} is not in the annotation file, expected one of {some(truth.videos)}"
            )
        elif is_list:
            video = self._video(key) or new_videos.get(key)
            if video is None:
                # Annotations alone do not name videos without objects; what is predicted there is wrong all the same.
                size = infer_size(masks)
                if size is None:
                    return [*problems, "the video has no annotations, and no RLE of the prediction gives its size"]
                video = new_videos[key] = Video(key, *map(int, size), len(masks))
            if len(masks) != video.length:
                problems.append(f"`segmentations` has {len(masks)} entries, the video {video.length} frames")
        return problems

    def _score_video(
        self, video: Video, entries: list[tuple[str, Prediction]], problems: list[str]
    ) -> tuple[dict[Any, Group], Counter, list[tuple[str, int]]]:
        """IoU tables of one video's predictions by category, how many they are, and a hash for each that is not empty.

        What is wrong with their masks is added to `problems`.
        """
        # Several predictions often share one track: a query's mask under its best few categories.
        tracks: dict[tuple, tuple[list, list[int]]] = {}
        for index, (name, entry) in enumerate(entries):
            masks, wrong = read_masks(entry["segmentations"], video)
            if wrong:
                problems += [f"{name}, frame {frame}: {problem}" for frame, problem in wrong.items()]
                continue
            try:
                tracks.setdefault(tuple(masks), (masks, []))[1].append(index)
            except TypeError:  # run lengths are lists
                key = tuple(mask if type(mask) is str else tuple(mask) for mask in masks)
                tracks.setdefault(key, (masks, []))[1].append(index)
        categories = [entry["category_id"] for _, entry in entries]
        # Tracks of one category side by side, those with nothing to be compared to last.
        order = {category: rank for rank, category in enumerate(video.instances)}
        distinct = sorted(tracks.values(), key=lambda item: min(order.get(categories[i], len(order)) for i in item[1]))
        masks, users = [masks for masks, _ in distinct], [indices for _, indices in distinct]
        objects = {c: [o.pairs for o in video.instances[c]] for c in {*categories} & video.instances.keys()}
        object_areas = {c: np.array([o.area for o in video.instances[c]], np.float64) for c in objects}

        areas, mean_areas = np.zeros(len(entries)), np.zeros(len(entries))
        ious: dict[int, np.ndarray] = {}
        first = 0
        for decoded in decode_tracks(masks, video.pixels):
            if isinstance(decoded, RleError):
                name = entries[users[first][0]][0]
                problems += [f"{name}, frame {frame}: {problem}" for frame, problem in decoded.problems.items()]
                first += 1
                continue
            members: dict[Any, list[tuple[int, int]]] = {}
            sums = decoded.areas.sum(axis=1)
            means = sums / np.maximum(np.count_nonzero(decoded.areas, axis=1), 1)
            for place in range(len(decoded.areas)):
                for index in users[first + place]:
                    areas[index], mean_areas[index] = sums[place], means[place]
                    if categories[index] in objects:
                        members.setdefault(categories[index], []).append((place, index))
            first += len(decoded.areas)
            for category, pairs in members.items():
                places, indices = map(list, zip(*pairs))
                low, high = min(places), max(places) + 1
                shared = intersections(decoded.pairs, decoded.starts[low : high + 1], objects[category])
                shared = shared[np.subtract(places, low)].astype(np.float64)
                union = areas[indices, None] + object_areas[category] - shared
                table = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
                ious.update(zip(indices, table))

        filled = [index for index, area in enumerate(areas) if area]
        counts = Counter(predictions=len(entries), empty=len(entries) - len(filled))
        keys = {index: key for key, (_, indices) in tracks.items() for index in indices}
        hashes = [(entries[i][0], hash((categories[i], float(entries[i][1]["score"]), keys[i]))) for i in filled]
        groups: dict[Any, Group] = {}
        if not problems:
            by_category: dict[Any, list[int]] = {}
            for index, category in enumerate(categories):
                by_category.setdefault(category, []).append(index)
            scores = np.array([entry["score"] for _, entry in entries], np.float64)
            for category, indices in by_category.items():
                indices = sorted(indices, key=lambda index: -scores[index])[: MAX_DETECTIONS[-1]]
                width = len(video.instances.get(category, ()))
                table = np.array([ious[index] for index in indices]) if width else np.zeros((len(indices), 0))
                groups[category] = Group(scores[indices], mean_areas[indices], table)
        return groups, counts, hashes

    def ious(self, video_id: Any, category_id: Any) -> np.ndarray:
        """IoUs of a video's predictions of a category with its objects.

        Returns:
            `(D, G)` float64: the up to 100 best predictions, best first, and the objects in the file's order.
        """
        video = self.ground_truth.videos[video_id]
        group = self._groups.get(video_id, {}).get(category_id)
        return np.zeros((0, len(video.instances.get(category_id, ())))) if group is None else group.ious.copy()

    def state(self) -> dict:
        """All that was added so far, as small objects of Python and numpy that can be pickled and gathered.

        Returns:
            `{"references": str, "videos": {id: {"counts": dict, "groups": {category id: (scores, areas, ious)}}}}`.
        """
        if self._fingerprint is None:
            self._fingerprint = self.ground_truth.fingerprint()
        videos = {
            key: {"counts": dict(self._counts[key]), "groups": {c: tuple(group) for c, group in groups.items()}}
            for key, groups in self._groups.items()
        }
        return {"references": self._fingerprint, "videos": videos}

    def merge(self, states: dict | Iterable[dict]) -> "VisEvaluator":
        """Takes over what other processes added.

        A video's predictions belong into one process. Where two states have the same video with the same predictions (a
        sampler that repeats some to fill the last batch, or this evaluator's own state), it counts once.

        Args:
            states: results of `state`, in any order.

        Returns:
            This evaluator.

        Raises:
            ValueError: a state was computed against other annotations, or two have different predictions for a video.
        """
        mine = self.state()["references"]
        for state in [states] if isinstance(states, dict) else list(states):
            if state["references"] != mine:
                raise ValueError(
                    f"states of different annotations cannot be merged: {state['references']} and {mine} "
                    "(number of videos and objects, and a checksum)"
                )
            for key, content in state["videos"].items():
                groups = {category: Group(*arrays) for category, arrays in content["groups"].items()}
                if key not in self._groups:
                    self._groups[key], self._counts[key] = groups, Counter(content["counts"])
                elif not _are_equal(self._groups[key], groups):
                    raise ValueError(
                        f"video {key} has different predictions in two states: all predictions of a video must be "
                        "added in one process"
                    )
        return self

    def compute(self) -> dict[str, Any]:
        """Scores everything that was added or merged. More can be added afterwards.

        Returns:
            Fractions in [0, 1], −1 where the annotations have no object to be found: `AP`, `AP50`, `AP75`, `APs`,
            `APm`, `APl`, `AR1`, `AR10`, `AR100`, `ARs`, `ARm`, `ARl`; `AP_slight`, `AP_moderate`, `AP_heavy` if any
            annotation has an `occlusion`; and `per_category`, the AP by category name.
        """
        scores = self._score_categories({*self.ground_truth.videos, *self._groups})
        result: dict[str, Any] = _summary(list(scores.values()))
        if any(instance.occlusion is not None for _, _, instance in self.ground_truth):
            for name in OCCLUSION_RANGES:
                result[f"AP_{name}"] = _mean([s.precision[FILTERS.index(name)] for s in scores.values()])
        names = self.ground_truth.category_names()
        result["per_category"] = {names[key]: _mean([s.precision[0]]) for key, s in scores.items()}
        if result["AP"] <= 0:
            logger.warning("AP is %g: %s", result["AP"], self.explain_zero())
        return result

    def category_table(self) -> list[dict[str, Any]]:
        """A row for each category: `id`, `name`, `objects`, `predictions`, and the twelve numbers of `compute`.

        `objects` leaves out crowds; `predictions` are those that can count, at most 100 a video.
        """
        scores = self._score_categories({*self.ground_truth.videos, *self._groups})
        names = self.ground_truth.category_names()
        objects = Counter(category for _, category, instance in self.ground_truth if not instance.is_crowd)
        predictions = Counter()
        for groups in self._groups.values():
            predictions.update({category: len(group.scores) for category, group in groups.items()})
        return [
            {"id": key, "name": names[key], "objects": objects[key], "predictions": predictions[key], **_summary([s])}
            for key, s in scores.items()
        ]

    def video_table(self) -> list[dict[str, Any]]:
        """A row for each video, the worst first.

        Each has `id`, `objects` (crowds left out), `predictions`, `AP` (of this video alone, over the categories it has
        objects of; −1 without any) and `mean_best_iou`, the mean over its objects of the best IoU that a prediction of
        the object's category reaches (−1 without any objects). Videos without objects come last.
        """
        rows = []
        for key, video in self.ground_truth.videos.items():
            groups = self._groups.get(key, {})
            best = []
            for category, instances in video.instances.items():
                ious = groups[category].ious if category in groups else np.zeros((0, len(instances)))
                top = ious.max(axis=0, initial=0.0)
                best += [iou for iou, instance in zip(top.tolist(), instances) if not instance.is_crowd]
            scores = self._score_categories([key])
            rows.append(
                {
                    "id": key,
                    "objects": len(best),
                    "predictions": self._counts.get(key, Counter())["predictions"],
                    "AP": _mean([s.precision[0] for s in scores.values()]),
                    "mean_best_iou": sum(best) / len(best) if best else -1.0,
                }
            )
        return sorted(rows, key=lambda row: (not row["objects"], row["AP"], row["mean_best_iou"]))

    def _score_categories(self, videos: Iterable) -> dict[Any, CategoryScores]:
        """Results over the videos of these ids, by category id, in ascending order of the ids."""
        by_category: dict[Any, list] = {category: [] for category in self.ground_truth.categories}
        # Ascending ids, as in the official scorers: this decides between equal scores in different videos.
        for key in sorted(videos, key=id_order):
            groups, video = self._groups.get(key, {}), self.ground_truth.videos.get(key)
            for category in {**groups, **(video.instances if video else {})}:
                # Predictions of categories that annotations alone do not name have nothing to be scored against.
                if category in by_category:
                    objects = _describe(video, category) if video else None
                    by_category[category].append((groups.get(category), objects))
        return {category: score_category(pairs) for category, pairs in by_category.items()}

    def explain_zero(self) -> str:
        """Why AP is 0 or −1, as far as it can be told from what was added."""
        truth = [(v, c) for v, c, instance in self.ground_truth if not instance.is_crowd]
        if not truth:
            return "the annotations have no objects to be found (none at all, or only crowds)"
        counts = sum(self._counts.values(), Counter())
        total = counts["predictions"]
        if not total:
            return "there are no predictions"
        if counts["empty"] == total:
            return f"the masks of all {total} predictions are empty"
        annotated = {v.id for v, _ in truth}
        if not annotated & self._groups.keys():
            return (
                f"no prediction is in a video with annotated objects: predictions are in videos {some(self._groups)}, "
                f"objects in {some(sorted(annotated, key=str))}"
            )
        pairs = {(v.id, c) for v, c in truth}
        tables = [group.ious for v, groups in self._groups.items() for c, group in groups.items() if (v, c) in pairs]
        if not tables:
            predicted = {category for groups in self._groups.values() for category in groups}
            return (
                "no prediction has the category of an object in the same video: predicted are categories "
                f"{some(sorted(predicted, key=str))}, annotated {some(sorted({c for _, c in truth}, key=str))} (labels "
                "counted from 0 instead of the file's ids?)"
            )
        best = max((table.max(initial=0.0) for table in tables), default=0.0)
        if best < IOU_THRESHOLDS[0]:
            return (
                f"the best overlap (IoU over all frames) of a prediction with an object of its category is {best:.3f}, "
                f"below {IOU_THRESHOLDS[0]:g} (masks of another size, of other frames, or shifted in time?)"
            )
        return f"matches exist (best IoU {best:.3f}) but only with objects or predictions that are ignored"


def _describe(video: Video, category: Any) -> Objects | None:
    instances = video.instances.get(category)
    if not instances:
        return None
    return describe_objects(
        [instance.mean_area for instance in instances],
        [np.nan if instance.occlusion is None else instance.occlusion for instance in instances],
        [instance.is_crowd for instance in instances],
    )


def _are_equal(first: dict[Any, Group], second: dict[Any, Group]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(a, b) for category, group in first.items() for a, b in zip(group, second[category])
    )


def _mean(values: list[np.ndarray]) -> float:
    """Mean of what is there, −1 if nothing is."""
    values = np.concatenate([np.ravel(value) for value in values]) if values else np.empty(0)
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _summary(scores: list[CategoryScores]) -> dict[str, float]:
    """The twelve numbers over some categories."""
    result = {
        "AP": _mean([s.precision[0] for s in scores]),
        "AP50": _mean([s.precision[0, 0] for s in scores]),
        "AP75": _mean([s.precision[0, 5] for s in scores]),
    }
    areas = list(AREA_RANGES)[1:]
    for name in areas:
        result[f"AP{name[0]}"] = _mean([s.precision[FILTERS.index(name)] for s in scores])
    for index, limit in enumerate(MAX_DETECTIONS):
        result[f"AR{limit}"] = _mean([s.recall[index, 0] for s in scores])
    for name in areas:
        result[f"AR{name[0]}"] = _mean([s.recall[-1, FILTERS.index(name)] for s in scores])
    return result

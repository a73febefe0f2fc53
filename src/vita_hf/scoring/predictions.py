"""Check predicted tracks, and measure them against the annotated objects of their video."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data.annotations import InvalidInputError, Problem, load_json
from ..data.annotations.reader import infer_size
from ..data.annotations.values import is_finite, is_id, is_list, some
from ..ops.rle import DecodedTracks, RleError, decode_tracks, intersections, shorten
from .average_precision import MAX_DETECTIONS, Detections
from .ground_truth import GroundTruth, ScoredVideo

TRACK_FIELDS = ("video_id", "category_id", "score", "segmentations")
IMAGE_FIELDS = ("image_id", "category_id", "score", "segmentation")

Predictions = str | os.PathLike | dict[str, Any] | Sequence[dict[str, Any]]


class Prediction(NamedTuple):
    """One predicted track, with its place in the input, like "predictions[3]"."""

    entry: str
    category_id: Any
    score: float
    segmentations: Sequence[Any]


def load_predictions(source: Predictions) -> tuple[str | None, Sequence[Any]]:
    """
    Return a list of predictions, and the path it was loaded from.

    Raises:
        InvalidInputError: if the source is not a prediction, a list of them, or a json file with such a list.
    """
    path, entries = None, source
    if isinstance(source, (str, os.PathLike)):
        path, entries = os.fspath(source), load_json(source, InvalidInputError)
    elif isinstance(source, dict):
        entries = [source]
    if not is_list(entries):
        message = f"expected a list of predictions, got {shorten(entries)}"
        raise InvalidInputError([Problem("malformed", message, path)])
    return path, entries


class CheckedPredictions:
    """
    Predictions of any number of videos, checked against the ground truth except for their masks.

    Args:
        path: The path of the predictions' file, or None.
        entries: The predictions.
        truth: The ground truth.
        fields: `TRACK_FIELDS`, or `IMAGE_FIELDS` for COCO.

    Attributes:
        by_video: Each video with its valid predictions, by video id.
        problems: The problems of the other predictions.
    """

    def __init__(
        self,
        path: str | None,
        entries: Sequence[Any],
        truth: GroundTruth,
        fields: tuple[str, str, str, str] = TRACK_FIELDS,
    ):
        self.path, self.truth, self.fields = path, truth, fields
        self.by_video: dict[Any, tuple[ScoredVideo, list[Prediction]]] = {}
        self.problems: list[Problem] = []
        for index, entry in enumerate(entries):
            self._check(f"predictions[{index}]", entry)

    def note(self, kind: str, message: str, entry: str, video_id: Any = None) -> None:
        self.problems.append(Problem(kind, message, self.path, entry, video_id))

    def _check(self, place: str, entry: Any) -> None:
        """Add an entry to `by_video` if nothing is wrong with it, masks aside."""
        if not isinstance(entry, dict):
            self.note("malformed", f"expected an object, got {shorten(entry)}", place)
            return
        key = entry.get(self.fields[0])
        missing = [name for name in self.fields if name not in entry]
        if missing:
            self.note("malformed", f"it has no {', '.join(map(repr, missing))}", place, key)
            return
        category, score, masks = (entry[name] for name in self.fields[1:])
        if self.fields == IMAGE_FIELDS:
            masks = [masks]
        truth, before = self.truth, len(self.problems)
        if not is_id(category) or (truth.is_complete and category not in truth.categories):
            message = f"`category_id` {shorten(category)} is not in the annotation file, expected one of "
            self.note("unknown-category", message + some(truth.categories), place, key)
        if not is_finite(score):
            self.note("malformed", f"`score` is {shorten(score)}, expected a finite number", place, key)
        video = None
        if not is_id(key) or (truth.is_complete and key not in truth.videos):
            message = f"`{self.fields[0]}` {shorten(key)} is not in the annotation file, expected one of "
            self.note("unknown-video", message + some(truth.videos), place, key)
        elif not is_list(masks):
            message = f"`segmentations`: expected a list with one entry for each frame, got {shorten(masks)}"
            self.note("malformed", message, place, key)
        else:
            video = self._find_video(place, key, masks)
        if video and len(self.problems) == before:
            prediction = Prediction(place, category, float(score), masks)
            self.by_video.setdefault(key, (video, []))[1].append(prediction)

    def _find_video(self, place: str, key: Any, masks: Sequence[Any]) -> ScoredVideo | None:
        """Find the video of a prediction, and compare its length."""
        video = self.truth.videos.get(key)
        if key in self.by_video:
            video, _ = self.by_video[key]
        if video is None:
            # A list of annotations does not name the videos without objects; predictions there are false positives.
            size = infer_size(masks)
            if size is None:
                message = "the video has no annotations, and no RLE of the prediction gives its size"
                self.note("unknown-video", message, place, key)
                return None
            video = ScoredVideo(key, *size, length=len(masks))
        if len(masks) != video.length:
            message = f"`segmentations` has {len(masks)} entries, the video {video.length} frames"
            self.note("length", message, place, key)
        return video


class VideoMeasures(NamedTuple):
    """
    The predictions of one video, ready for matching.

    Attributes:
        detections: Scores, areas and IoUs by category.
        counts: The number of "predictions", and of "empty" ones.
        hashes: For every prediction that is not empty, its entry and a hash of category, score and masks.
    """

    detections: dict[Any, Detections]
    counts: Counter
    hashes: list[tuple[str, int]]


def measure_video(path: str | None, video: ScoredVideo, predictions: list[Prediction]) -> VideoMeasures:
    """
    Measure the areas of a video's predictions and their IoUs with the objects of the same category.

    Args:
        path: The path of the predictions' file, or None.
        video: The video with its objects.
        predictions: The video's predictions.

    Raises:
        InvalidInputError: if masks cannot be read; lists every one.
    """
    problems: list[Problem] = []

    def note(kind: str, prediction: Prediction, messages: dict[int, str]):
        place = (path, prediction.entry, video.id, None)
        problems.extend(Problem(kind, message, *place, frame) for frame, message in messages.items())

    # Several predictions often share one track: a query's mask under its best few categories.
    tracks: dict[Any, tuple[list, list[int]]] = {}
    for index, prediction in enumerate(predictions):
        masks, unreadable = video.read_masks(prediction.segmentations)
        note("malformed", prediction, unreadable)
        if not unreadable:
            tracks.setdefault(_hashable(masks), (masks, []))[1].append(index)
    measures = _TrackMeasures(video, [prediction.category_id for prediction in predictions])
    distinct = sorted(tracks.values(), key=measures.category_rank)
    position = 0
    for batch in decode_tracks([masks for masks, _ in distinct], video.pixels):
        if isinstance(batch, RleError):
            note("rle-corrupt", predictions[distinct[position][1][0]], batch.problems)
            position += 1
        else:
            following = position + len(batch.areas)
            measures.add(batch, [users for _, users in distinct[position:following]])
            position = following
    if problems:
        raise InvalidInputError(problems)

    filled = np.flatnonzero(measures.areas)
    keys = {index: key for key, (_, users) in tracks.items() for index in users}
    hashes = [(p.entry, hash((p.category_id, p.score, keys[i]))) for i in filled.tolist() for p in [predictions[i]]]
    counts = Counter(predictions=len(predictions), empty=len(predictions) - filled.size)
    return VideoMeasures(measures.rank([prediction.score for prediction in predictions]), counts, hashes)


class _TrackMeasures:
    """Areas and IoUs of n predictions of one video, filled batch by batch."""

    def __init__(self, video: ScoredVideo, categories: list[Any]):
        self.video, self.categories = video, categories
        objects = {category: video.instances[category] for category in {*categories} & video.instances.keys()}
        self.object_pairs = {key: [each.pairs for each in instances] for key, instances in objects.items()}
        self.object_areas = {key: np.array([each.area for each in found], float) for key, found in objects.items()}
        self.ranks = {category: rank for rank, category in enumerate(video.instances)}
        self.areas, self.mean_areas = np.zeros(len(categories)), np.zeros(len(categories))
        self.ious: dict[int, np.ndarray] = {}

    def category_rank(self, track: tuple[list, list[int]]) -> int:
        """Sort tracks by this key: tracks of one category side by side, those without objects last."""
        return min(self.ranks.get(self.categories[index], len(self.ranks)) for index in track[1])

    def add(self, batch: DecodedTracks, users: list[list[int]]) -> None:
        """Measure a batch of tracks; `users` lists the predictions of each track."""
        totals = batch.areas.sum(axis=1)
        means = totals / np.maximum(np.count_nonzero(batch.areas, axis=1), 1)
        by_category: dict[Any, tuple[list[int], list[int]]] = {}
        for row, indices in enumerate(users):
            self.areas[indices], self.mean_areas[indices] = totals[row], means[row]
            for index in indices:
                if self.categories[index] in self.object_pairs:
                    rows, members = by_category.setdefault(self.categories[index], ([], []))
                    rows.append(row)
                    members.append(index)
        for category, (rows, members) in by_category.items():
            low, high = min(rows), max(rows) + 1
            shared = intersections(batch.pairs, batch.starts[low : high + 1], self.object_pairs[category])
            shared = shared[np.subtract(rows, low)].astype(np.float64)
            union = self.areas[members, None] + self.object_areas[category] - shared
            table = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
            self.ious.update(zip(members, table))

    def rank(self, scores: list[float]) -> dict[Any, Detections]:
        """Sort the predictions of each category by score, and keep those that can count."""
        by_category: dict[Any, list[int]] = {}
        all_scores = np.array(scores)
        for index in sorted(range(len(scores)), key=lambda index: -scores[index]):
            by_category.setdefault(self.categories[index], []).append(index)
        detections = {}
        for category, indices in by_category.items():
            indices = indices[: MAX_DETECTIONS[-1]]
            has_objects = category in self.object_pairs
            ious = np.array([self.ious[i] for i in indices]) if has_objects else np.zeros((len(indices), 0))
            detections[category] = Detections(all_scores[indices], self.mean_areas[indices], ious)
        return detections


def _hashable(masks: list[str | list[int]]) -> tuple:
    """Make a key of a track's masks; run lengths are lists."""
    return tuple(masks) if all(type(mask) is str for mask in masks) else tuple(map(str, masks))

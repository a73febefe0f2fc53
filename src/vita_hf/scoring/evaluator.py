"""Average precision of video instance segmentation, as the YouTube-VIS and OVIS evaluation servers compute it."""

import logging
import os
from collections import Counter
from typing import Any

import numpy as np

from ..data.annotations import InvalidInputError
from ..data.annotations.values import some
from . import reports
from .ground_truth import GroundTruth, ScoredVideo
from .matching import CategoryScores, Detections
from .predictions import CheckedPredictions, Predictions, load_predictions, measure_video

logger = logging.getLogger(__name__)


class VisEvaluator:
    """
    Scores predicted tracks against annotated ones.

    Predictions can be added all at once or video by video; only IoU tables and scores of each video are kept. Several
    processes can add their own videos, and one of them merges the `state` of all: the result has the same digits
    however the videos were split.

    Args:
        references: The path of an annotation file in YouTube-VIS or OVIS form, its content, or the list of its
            annotations (see [`GroundTruth`]).

    Raises:
        AnnotationError: if the annotations are malformed; a `ValueError` that lists every problem.

    Example:
    ```python
    >>> from vita_hf.scoring import VisEvaluator

    >>> masks = [{"size": [2, 2], "counts": [0, 2, 2]}, None]  # an RLE for each frame: the object covers a column
    >>> evaluator = VisEvaluator(
    ...     {
    ...         "videos": [{"id": 1, "height": 2, "width": 2, "length": 2}],
    ...         "categories": [{"id": 5, "name": "fox"}],
    ...         "annotations": [{"id": 1, "video_id": 1, "category_id": 5, "segmentations": masks}],
    ...     }
    ... )
    >>> evaluator.add({"video_id": 1, "category_id": 5, "score": 0.9, "segmentations": masks})
    >>> round(evaluator.compute()["AP"], 3)
    1.0

    ```
    """

    def __init__(self, references: str | os.PathLike | dict | list):
        self.ground_truth = GroundTruth(references)
        self._unannotated: dict[Any, ScoredVideo] = {}
        self._detections: dict[Any, dict[Any, Detections]] = {}
        self._counts: dict[Any, Counter] = {}
        self._hashes: dict[Any, set[int]] = {}
        self._fingerprint: str | None = None

    def add(self, predictions: Predictions) -> None:
        """
        Add predictions: all of them or, if anything is wrong with one, none.

        Args:
            predictions: One prediction, a list of them for any number of videos, or the path of a json file with such a
                list. Each is `{"video_id", "category_id", "score", "segmentations"}`, with an RLE, a list of polygons
                or None for each of the video's frames. Of equal scores in one video, the one added first ranks first.

        Raises:
            InvalidInputError: if predictions are malformed; lists every problem with its entry, video and frame.
        """
        path, entries = load_predictions(predictions)
        checked = CheckedPredictions(path, entries, self.ground_truth, self._unannotated)
        problems, measured = checked.problems, {}
        for key, (video, members) in checked.by_video.items():
            try:
                measured[key] = measure_video(path, video, members)
            except InvalidInputError as error:
                problems += error.problems
        if problems:
            raise InvalidInputError(problems)

        self._unannotated.update(checked.new_videos)
        repeated: list[str] = []
        for key, measures in measured.items():
            known = self._detections.setdefault(key, {})
            for category, detections in measures.detections.items():
                known[category] = known[category].join(detections) if category in known else detections
            self._counts.setdefault(key, Counter()).update(measures.counts)
            hashes = self._hashes.setdefault(key, set())
            for entry, track in measures.hashes:
                if track in hashes:
                    repeated.append(f"{entry} (video {key})")
                hashes.add(track)
        if repeated:
            logger.warning(
                "%d predictions repeat an earlier one (same video, category, score and masks) and are scored as false "
                "positives: %s",
                len(repeated),
                some(repeated, 5),
            )

    def forget(self, video_id: Any) -> None:
        """Remove a video's predictions, for example before adding them once more."""
        for table in (self._detections, self._counts, self._hashes):
            table.pop(video_id, None)

    @property
    def num_predictions(self) -> int:
        """The number of predictions added or merged so far."""
        return sum(counts["predictions"] for counts in self._counts.values())

    def ious(self, video_id: Any, category_id: Any) -> np.ndarray:
        """
        Return the IoUs of a video's predictions of a category with its objects.

        Returns:
            Float64 array (D, G): the up to 100 best predictions, best first, and the objects in the file's order.
        """
        detections = self._detections.get(video_id, {}).get(category_id)
        if detections is None:
            return np.zeros((0, len(self.ground_truth.videos[video_id].instances.get(category_id, ()))))
        return detections.ious.copy()

    def state(self) -> dict[str, Any]:
        """
        Return everything added so far, as small Python and numpy objects that can be pickled and gathered.

        Returns:
            `{"references": str, "videos": {id: {"counts": dict, "detections": {category id: (scores, areas, ious)}}}}`.
        """
        if self._fingerprint is None:
            self._fingerprint = self.ground_truth.fingerprint()
        videos = {
            key: {"counts": dict(self._counts[key]), "detections": {c: tuple(each) for c, each in by_category.items()}}
            for key, by_category in self._detections.items()
        }
        return {"references": self._fingerprint, "videos": videos}

    def merge(self, states: dict[str, Any] | list[dict[str, Any]]) -> "VisEvaluator":
        """
        Merge the predictions that other processes added.

        All predictions of a video must be added in one process. A video that two states have with the same predictions
        counts once: samplers repeat videos to fill the last batch, and the states may include this evaluator's own.

        Args:
            states: Results of `state`, in any order.

        Returns:
            This evaluator.

        Raises:
            ValueError: if a state belongs to other annotations, or two states differ in a video's predictions.
        """
        fingerprint = self.state()["references"]
        for state in [states] if isinstance(states, dict) else states:
            if state["references"] != fingerprint:
                raise ValueError(
                    f"states of different annotations cannot be merged: {state['references']} and {fingerprint} "
                    "(number of videos and objects, and a checksum)"
                )
            for key, content in state["videos"].items():
                detections = {category: Detections(*arrays) for category, arrays in content["detections"].items()}
                if key not in self._detections:
                    self._detections[key], self._counts[key] = detections, Counter(content["counts"])
                elif not _are_equal(self._detections[key], detections):
                    raise ValueError(
                        f"video {key} has different predictions in two states: all predictions of a video must be "
                        "added in one process"
                    )
        return self

    def compute(self) -> dict[str, Any]:
        """
        Score everything added or merged so far. More can be added afterwards.

        Returns:
            Fractions in [0, 1], or −1 if the annotations have no object to find: `AP`, `AP50`, `AP75`, `APs`, `APm`,
            `APl`, `AR1`, `AR10`, `AR100`, `ARs`, `ARm`, `ARl`; `AP_slight`, `AP_moderate` and `AP_heavy` if any
            annotation has `occlusion`; and `per_category`, the AP by category name.
        """
        result = reports.summarize(self.ground_truth, self._score_categories())
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
        return reports.category_table(self.ground_truth, self._detections, self._score_categories())

    def video_table(self) -> list[dict[str, Any]]:
        """
        Return a row for each video, the worst first and those without objects last.

        Returns:
            Dicts of `id`, `objects` (crowds left out), `predictions`, `AP` (of this video alone, over the categories of
            its objects) and `mean_best_iou` (the mean, over the objects, of the best IoU with a prediction of the same
            category). Both scores are −1 without any object.
        """
        return reports.video_table(self.ground_truth, self._detections, self._counts)

    def explain_zero(self) -> str:
        """Explain an AP of 0 or −1, as far as the input shows the reason."""
        return reports.explain_zero(self.ground_truth, self._detections, self._counts)

    def _score_categories(self) -> dict[Any, CategoryScores]:
        videos = {*self.ground_truth.videos, *self._detections}
        return reports.score_categories(self.ground_truth, self._detections, videos)


def _are_equal(first: dict[Any, Detections], second: dict[Any, Detections]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(a, b) for category, detections in first.items() for a, b in zip(detections, second[category])
    )

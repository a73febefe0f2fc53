"""Average precision of video instance segmentation, as the YouTube-VIS and OVIS evaluation servers compute it."""

import logging
import os
from collections import Counter
from typing import Any

import numpy as np

from ..data.annotations import InvalidInputError
from ..data.annotations.values import some
from .average_precision import Detections
from .ground_truth import GroundTruth
from .predictions import CheckedPredictions, Predictions, load_predictions, measure_video
from .reports import ScoreReports

logger = logging.getLogger(__name__)


class VisEvaluator(ScoreReports):
    """
    Scores predicted tracks against annotated ones.

    Predictions can be added all at once or video by video; only IoU tables and scores of each video are kept. Several
    processes can add their own videos, and one of them merges the `state` of all: the result is identical however the
    videos were split.

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
        super().__init__(GroundTruth(references))
        self._hashes: dict[Any, set[int]] = {}
        self._fingerprint: str | None = None

    def add(self, predictions: Predictions) -> None:
        """
        Add predictions. If any of them is invalid, none is added.

        Args:
            predictions: One prediction, a list of them for any number of videos, or the path of a json file with such a
                list. Each is `{"video_id", "category_id", "score", "segmentations"}`, with an RLE, a list of polygons
                or None for each of the video's frames. Among equal scores in a video, the one added first ranks first.

        Raises:
            InvalidInputError: if predictions are malformed; lists every problem with its entry, video and frame.
        """
        path, entries = load_predictions(predictions)
        checked = CheckedPredictions(path, entries, self.ground_truth)
        problems, measured = checked.problems, {}
        for key, (video, members) in checked.by_video.items():
            try:
                measured[key] = measure_video(path, video, members)
            except InvalidInputError as error:
                problems += error.problems
        if problems:
            raise InvalidInputError(problems)

        repeated: list[str] = []
        for key, measures in measured.items():
            known = self.detections.setdefault(key, {})
            for category, detections in measures.detections.items():
                known[category] = known[category].join(detections) if category in known else detections
            self.counts.setdefault(key, Counter()).update(measures.counts)
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
        """Remove a video's predictions, for example before adding them again."""
        for table in (self.detections, self.counts, self._hashes):
            table.pop(video_id, None)

    @property
    def num_predictions(self) -> int:
        """The number of predictions added or merged so far."""
        return sum(counts["predictions"] for counts in self.counts.values())

    def state(self) -> dict[str, Any]:
        """
        Return everything added so far, as small Python and numpy objects that can be pickled and gathered.

        Returns:
            `{"references": str, "videos": {id: {"counts": dict, "detections": {category id: (scores, areas, ious)}}}}`.
        """
        if self._fingerprint is None:
            self._fingerprint = self.ground_truth.fingerprint()
        videos = {
            key: {"counts": dict(self.counts[key]), "detections": {c: tuple(each) for c, each in by_category.items()}}
            for key, by_category in self.detections.items()
        }
        return {"references": self._fingerprint, "videos": videos}

    def merge(self, states: dict[str, Any] | list[dict[str, Any]]) -> "VisEvaluator":
        """
        Merge the predictions that other processes added.

        All predictions of a video must be added in one process. A video that appears in two states with the same
        predictions counts once: samplers repeat videos to fill the last batch, and the states may include this
        evaluator's own.

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
                if key not in self.detections:
                    self.detections[key], self.counts[key] = detections, Counter(content["counts"])
                elif not _are_equal(self.detections[key], detections):
                    raise ValueError(
                        f"video {key} has different predictions in two states: all predictions of a video must be "
                        "added in one process"
                    )
        return self


def _are_equal(first: dict[Any, Detections], second: dict[Any, Detections]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(a, b) for category, detections in first.items() for a, b in zip(detections, second[category])
    )

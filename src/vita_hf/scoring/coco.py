"""Mask AP of images as COCO defines it, computed by pycocotools."""

import contextlib
import io
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.annotations import InvalidInputError
from ..ops.rle import RleError, compress, decode
from .ground_truth import GroundTruth
from .predictions import IMAGE_FIELDS, CheckedPredictions, Predictions, load_predictions

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def score_images(annotations: str | os.PathLike | dict[str, Any], results: Predictions) -> dict[str, Any]:
    """
    Score predicted masks of images.

    Args:
        annotations: The path of a json file of COCO's instances, or its content. `iscrowd` and `area` may be missing.
        results: The path of a json file with a list of `{"image_id", "category_id", "score", "segmentation"}`, or the
            list. The size of a result is the area of its mask; a `bbox` has no effect.

    Returns:
        The twelve numbers `AP`, `AP50` … `ARl` in [0, 1], or −1 without any object, and `per_category`, the AP by
        category name.

    Raises:
        AnnotationError: if the annotations are malformed; lists every problem.
        InvalidInputError: if the results are malformed; lists every problem.
    """
    truth = GroundTruth(annotations, "coco")
    detections = _to_coco_results(CheckedPredictions(*load_predictions(results), truth, IMAGE_FIELDS))
    if not detections:
        return {**dict.fromkeys(NUMBERS, 0.0), "per_category": {}}
    with contextlib.redirect_stdout(io.StringIO()):
        references = COCO()
        references.dataset = _to_coco(truth)
        references.createIndex()
        scorer = COCOeval(references, references.loadRes(detections), "segm")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    precision: Any = scorer.eval["precision"]  # thresholds × recalls × categories × areas × numbers of detections
    per_category = {}
    for index, name in enumerate(truth.category_names().values()):
        values = precision[:, :, index, 0, -1]
        per_category[name] = float(values.mean()) if (values > -1).any() else -1.0
    return {**dict(zip(NUMBERS, map(float, scorer.stats))), "per_category": per_category}


def _number(keys: Iterable[Any]) -> dict[Any, int]:
    """Number ids from 1, because pycocotools misreads id 0 and ids of 64 bits."""
    return {key: number for number, key in enumerate(keys, 1)}


def _to_coco(truth: GroundTruth) -> dict[str, list[dict[str, Any]]]:
    """Return the ground truth in COCO format."""
    image_ids, category_ids = _number(truth.videos), _number(truth.categories)
    images = [{"id": image_ids[key], "height": v.height, "width": v.width} for key, v in truth.videos.items()]
    annotations = []
    for video, category, instance in truth:
        run_lengths = np.trim_zeros(instance.pairs.ravel(), "b").tolist()
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_ids[video.id],
                "category_id": category_ids[category],
                "iscrowd": int(instance.is_crowd),
                "area": instance.mean_area,
                "segmentation": {"size": [video.height, video.width], "counts": run_lengths},
            }
        )
    categories = [{"id": number} for number in category_ids.values()]
    return {"images": images, "categories": categories, "annotations": annotations}


def _to_coco_results(checked: CheckedPredictions) -> list[dict[str, Any]]:
    """
    Return predictions in COCO format, with compressed masks.

    Raises:
        InvalidInputError: if there are problems with the predictions or their masks.
    """
    image_ids, category_ids = _number(checked.truth.videos), _number(checked.truth.categories)
    results = []
    for key, (video, predictions) in checked.by_video.items():
        for prediction in predictions:
            masks, problems = video.read_masks(prediction.segmentations)
            kind = "malformed"
            if not problems:
                try:
                    decode(masks, video.pixels)
                except RleError as error:
                    kind, problems = "rle-corrupt", error.problems
            if problems:
                checked.note(kind, problems[0], prediction.entry, key)
                continue
            counts = masks[0] if isinstance(masks[0], str) else compress(masks[0], video.pixels)
            results.append(
                {
                    "image_id": image_ids[key],
                    "category_id": category_ids[prediction.category_id],
                    "score": prediction.score,
                    "segmentation": {"size": [video.height, video.width], "counts": counts},
                }
            )
    if checked.problems:
        raise InvalidInputError(checked.problems)
    return results

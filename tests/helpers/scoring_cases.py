"""Small annotation files and predictions for the tests of scoring."""

import numpy as np

from helpers.annotation_files import compressed
from vita_hf.scoring import VisEvaluator


def score(references, predictions):
    evaluator = VisEvaluator(references)
    evaluator.add(predictions)
    return evaluator.compute()


def square(size=20, side=10, at=0):
    mask = np.zeros((size, size), bool)
    mask[:side, at : at + side] = True
    return mask


def tiny(num_videos=1, **extra):
    """Make a file with a square of category 1 over two frames in each video, and a perfect prediction of each."""
    masks = [compressed(square()), compressed(square(at=3))]
    videos = [{"id": v, "height": 20, "width": 20, "length": 2} for v in range(1, num_videos + 1)]
    annotations = [
        {"id": v["id"], "video_id": v["id"], "category_id": 1, "segmentations": masks, **extra} for v in videos
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    predictions = [{"video_id": v["id"], "category_id": 1, "score": 0.9, "segmentations": list(masks)} for v in videos]
    return {"videos": videos, "categories": categories, "annotations": annotations}, predictions

"""Predictions: lists of tracks and of COCO's results, scored against annotations."""

import random
from pathlib import Path

from fuzz.driver import refusals
from fuzz.mutations import mutate_json
from fuzz.target_annotations import COUNTS, HEIGHT, SQUARE, WIDTH, coco, youtube_vis
from vita_hf.scoring import VisEvaluator
from vita_hf.scoring.coco import score_images

SUFFIX = ".json"


def tracks() -> list[dict]:
    masks = [
        {"size": [HEIGHT, WIDTH], "counts": COUNTS},
        [SQUARE],
        {"size": [HEIGHT, WIDTH], "counts": [10, 20, 18]},
        None,
    ]
    return [{"video_id": key, "category_id": 5, "score": 0.5, "segmentations": masks} for key in (1, 2, 1)]


def results() -> list[dict]:
    masks = [{"size": [HEIGHT, WIDTH], "counts": COUNTS}, {"size": [HEIGHT, WIDTH], "counts": [10, 20, 18]}]
    return [{"image_id": 1, "category_id": 5, "score": 0.5, "segmentation": mask} for mask in masks]


def mutate(rng: random.Random) -> bytes:
    return mutate_json(rng, rng.choice((tracks, results))())


def check(path: Path) -> None:
    for references in (youtube_vis(), youtube_vis()["annotations"]):
        evaluator = VisEvaluator(references)
        with refusals(path):
            evaluator.add(path)
        evaluator.compute()
        evaluator.video_table()
    with refusals(path):
        score_images(coco(), path)

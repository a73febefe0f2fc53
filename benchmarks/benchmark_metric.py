"""Speed and memory of the video metric compared with plain pycocotools, on a synthetic dataset like YouTube-VIS 2019.

The dataset has the shape of the validation split: 302 videos of 27 frames of 720×1280, 40 categories, 1 to 4 objects
per video, mostly of one category; annotations are lists of run lengths as in the official files, predictions
compressed. Every prediction is a perturbed copy of one of the video's objects, in its category or (30%) another. With
`--distinct` below 1, predictions share masks, as a model's best pairs of a query and a class do: 0.5 means one mask
for two. A mask takes 540 characters of json, and a prediction is compared with 1.2 objects of its video and category
on average.

Three implementations score the same videos in turns, in one process and one thread, and must agree to 1e-9:
`VisEvaluator` with the C++ operators, the same with numpy, and what pycocotools offers for tracks: two `merge` and
two `area` for each pair of a prediction and an object of one video and category, frame by frame, then its own
matching. The best of three runs counts, for CPU time and wall-clock time separately, so that other work on the
machine matters less.

    python benchmarks/benchmark_metric.py                    # 10 and 100 predictions per video
    python benchmarks/benchmark_metric.py --predictions 10 --videos 60
"""

import argparse
import contextlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from pycocotools import mask as mask_api
from pycocotools.cocoeval import COCOeval

from measuring import in_new_process, peak_memory
from vita_hf.commands.evaluate import markdown_table
from vita_hf.ops import available_backends
from vita_hf.ops.rle import compress
from vita_hf.scoring import VisEvaluator
from vita_hf.scoring.coco import NUMBERS

HEIGHT, WIDTH, FRAMES, CATEGORIES = 720, 1280, 27, 40


def random_object(rng: np.random.Generator) -> dict:
    """Draw a blob that moves: its center, speed, half sizes, and what makes its outline uneven."""
    half = np.clip(rng.lognormal(np.log([115, 95]), 0.5), 15, [450, 300])
    return {
        "center": rng.uniform([150, 100], [WIDTH - 150, HEIGHT - 100]),
        "speed": rng.normal(0, 5, 2),
        "half": half,
        "waves": rng.uniform(0, 6.28, 3),
        "has_hole": rng.random() < 0.3,
    }


def disturb(blob: dict, rng: np.random.Generator) -> dict:
    """Shift and scale a blob, by little or by much."""
    amount = rng.choice([0.02, 0.1, 0.5])
    return {
        **blob,
        "center": blob["center"] + rng.normal(0, amount, 2) * blob["half"],
        "half": blob["half"] * np.exp(rng.normal(0, amount, 2)),
        "waves": blob["waves"] + rng.normal(0, 3 * amount, 3),
    }


def run_lengths(blob: dict, frame: int) -> list[int]:
    """Draw the blob's mask in one frame."""
    (x, y), (half_width, half_height) = blob["center"] + frame * blob["speed"], blob["half"]
    columns = np.arange(max(0, int(x - half_width) + 1), min(WIDTH, int(x + half_width) + 1))
    u = (columns - x) / half_width
    bulge = np.sqrt(np.maximum(0, 1 - u * u)) * half_height
    first, second, third = blob["waves"] + 0.05 * frame
    top = y - bulge * (1 + 0.15 * np.sin(5 * u + first) + 0.03 * np.sin(31 * u + second))
    bottom = y + bulge * (1 + 0.15 * np.sin(4 * u + second) + 0.03 * np.sin(27 * u + third))
    edges = [top, bottom]
    if blob["has_hole"]:  # like the gap between legs
        gap = np.where(np.abs(u - 0.1) < 0.3, 0.3 * bulge, 0)
        edges = [top, y + 0.5 * bulge - gap, y + 0.5 * bulge + gap, bottom]
    rows = np.clip(np.rint(np.sort(np.stack(edges, axis=1), axis=1)), 0, HEIGHT).astype(np.int64)
    changes, counts = np.unique(rows + columns[:, None] * HEIGHT, return_counts=True)
    # Where one run of the object ends and the next begins, nothing changes.
    return np.diff(changes[counts % 2 == 1], prepend=0, append=HEIGHT * WIDTH).tolist()


def make_annotations(num_videos: int) -> tuple[dict, list[list[tuple[dict, int]]]]:
    """Make an annotation file's content, and return each video's objects with their categories, too."""
    rng = np.random.default_rng(0)
    videos, annotations, objects = [], [], []
    for video_id in range(1, num_videos + 1):
        videos.append({"id": video_id, "height": HEIGHT, "width": WIDTH, "length": FRAMES})
        main, here = int(rng.integers(1, CATEGORIES + 1)), []
        for _ in range(rng.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08])):
            category = main if rng.random() < 0.75 else int(rng.integers(1, CATEGORIES + 1))
            here.append((random_object(rng), category))
            runs = [run_lengths(here[-1][0], frame) for frame in range(FRAMES)]
            areas = [area if area and rng.random() > 0.03 else None for area in (sum(each[1::2]) for each in runs)]
            masks = [area and {"size": [HEIGHT, WIDTH], "counts": each} for area, each in zip(areas, runs)]
            entry = {"id": len(annotations) + 1, "video_id": video_id, "category_id": category, "iscrowd": 0}
            annotations.append({**entry, "segmentations": masks, "areas": areas})
        objects.append(here)
    categories = [{"id": c, "name": f"category {c}"} for c in range(1, CATEGORIES + 1)]
    return {"videos": videos, "categories": categories, "annotations": annotations}, objects


def make_predictions(video_id: int, objects: list[tuple[dict, int]], count: int, distinct: float) -> list[dict]:
    """Make one video's predictions, as in a results file."""
    rng = np.random.default_rng([1, video_id])
    tracks, predictions = [], []
    for _ in range(max(1, round(count * distinct))):
        blob, category = objects[rng.integers(len(objects))]
        blob = disturb(blob, rng)
        counts = [compress(run_lengths(blob, frame), HEIGHT * WIDTH) for frame in range(FRAMES)]
        tracks.append(([{"size": [HEIGHT, WIDTH], "counts": each} for each in counts], category))
    for index in range(count):
        masks, category = tracks[index % len(tracks)]
        if rng.random() < 0.3:
            category = int(rng.integers(1, CATEGORIES + 1))
        entry = {"video_id": video_id, "category_id": category, "score": float(rng.random())}
        predictions.append({**entry, "segmentations": masks})
    return predictions


class PlainEvaluator(COCOeval):
    """pycocotools' evaluator with IoUs of tracks, for annotations without crowds."""

    def __init__(self, annotations: dict):
        super().__init__(iouType="bbox")  # whose IoUs `computeIoU` replaces
        self.params.imgIds = [video["id"] for video in annotations["videos"]]
        self.params.catIds = [category["id"] for category in annotations["categories"]]
        self.params.areaRng = [(0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10)]
        self.overlaps: dict[tuple[int, int], np.ndarray] = {}
        for entry in annotations["annotations"]:
            masks = [mask and mask_api.frPyObjects(mask, *mask["size"]) for mask in entry["segmentations"]]
            track = {"id": entry["id"], "masks": masks, "area": mean_area(entry["areas"]), "ignore": 0, "iscrowd": 0}
            self._gts[entry["video_id"], entry["category_id"]].append(track)

    def _prepare(self) -> None:
        """Do nothing, because the tracks are in place."""

    def computeIoU(self, video_id: int, category_id: int) -> np.ndarray | list:
        return self.overlaps.get((video_id, category_id), [])

    def add(self, predictions: list[dict]) -> None:
        """Add a video's predictions, in place of those added before."""
        groups = defaultdict(list)
        for index, entry in enumerate(predictions, start=1):
            masks = entry["segmentations"]
            area = mean_area([mask and int(mask_api.area(mask)) for mask in masks])
            track = {"id": index, "masks": masks, "area": area, "score": entry["score"]}
            groups[entry["video_id"], entry["category_id"]].append(track)
        for key, group in groups.items():
            self._dts[key] = sorted(group, key=lambda track: -track["score"])[:100]
            objects = self._gts[key]
            self.overlaps[key] = np.array(
                [[track_iou(track["masks"], other["masks"]) for other in objects] for track in self._dts[key]]
            )

    def compute(self) -> dict[str, float]:
        with contextlib.redirect_stdout(None):
            self.evaluate()
            self.accumulate()
            self.summarize()
        return dict(zip(NUMBERS, self.stats))


def mean_area(areas: list) -> float:
    areas = [area for area in areas if area]
    return sum(areas) / len(areas) if areas else 0.0


def track_iou(first: list, second: list) -> float:
    shared = total = 0
    for a, b in zip(first, second):
        if a and b:
            shared += mask_api.area(mask_api.merge([a, b], True))
            total += mask_api.area(mask_api.merge([a, b], False))
        elif a or b:
            total += mask_api.area(a or b)
    return shared / total if total else 0.0


class ReplacingEvaluator(VisEvaluator):
    """Takes predictions of the same video again and again."""

    def add(self, predictions: list[dict]) -> None:
        self.forget(predictions[0]["video_id"])
        super().add(predictions)


# The evaluator and the value of VITA_HF_KERNELS; the last is the one that the others are compared with.
CONTESTANTS = {
    "VisEvaluator": (ReplacingEvaluator, "auto"),
    "VisEvaluator, numpy": (ReplacingEvaluator, "off"),
    "plain pycocotools": (PlainEvaluator, "off"),
}


def compare(num_videos: int, count: int, distinct: float) -> None:
    """Score every video with all contestants, and print their times."""
    annotations, objects = make_annotations(num_videos)
    columns = ("annotations", "overlaps", "matching", "total", "wall")
    seconds = {name: dict.fromkeys(columns, 0.0) for name in CONTESTANTS}

    def timed(stage: str, calls: dict[str, Callable]) -> dict[str, Any]:
        """Call each contestant's function three times, in turns; add the fastest times, return the last results."""
        measured, results = defaultdict(list), {}
        for turn in range(3):
            for name in list(calls)[:: 1 if turn % 2 else -1]:
                with mock.patch.dict(os.environ, VITA_HF_KERNELS=CONTESTANTS[name][1]):
                    start = time.process_time(), time.perf_counter()
                    results[name] = calls[name]()
                    measured[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
        for name, times in measured.items():
            processor, wall = map(min, zip(*times))
            for column, value in ((stage, processor), ("total", processor), ("wall", wall)):
                seconds[name][column] += value
        return results

    evaluators = timed("annotations", {name: partial(build, annotations) for name, (build, _) in CONTESTANTS.items()})
    for video, here in zip(annotations["videos"], objects):
        # As if read from a results file: predictions that share masks hold equal strings, not the same.
        predictions = json.loads(json.dumps(make_predictions(video["id"], here, count, distinct)))
        timed("overlaps", {name: partial(evaluator.add, predictions) for name, evaluator in evaluators.items()})
    scores = timed("matching", {name: evaluator.compute for name, evaluator in evaluators.items()})

    *ours, rival = CONTESTANTS
    sizes = f"{num_videos} videos × {FRAMES} frames × {count} predictions ({distinct:g} distinct)"
    print(f"\n{sizes}, AP {scores[rival]['AP']:.4f}\n")
    print(markdown_table([{"processor seconds": name, **row} for name, row in seconds.items()]) + "\n")
    for name in ours:
        assert all(abs(scores[name][key] - value) < 1e-9 for key, value in scores[rival].items()), scores
        total, wall = (seconds[rival][column] / seconds[name][column] for column in ("total", "wall"))
        print(f"{name} is {total:.1f} times as fast as {rival}, {wall:.1f} times by the wall clock")


def measure_memory(num_videos: int, count: int, distinct: float) -> float:
    """Return the peak memory above that of the annotations, with predictions added video by video."""
    annotations, objects = make_annotations(num_videos)
    evaluator = VisEvaluator(annotations)

    def score() -> None:
        for video, here in zip(annotations["videos"], objects):
            evaluator.add(make_predictions(video["id"], here, count, distinct))
        evaluator.compute()

    return peak_memory(score, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=302)
    parser.add_argument("--predictions", type=int, nargs="+", default=[10, 100], help="per video")
    parser.add_argument("--distinct", type=float, default=1.0, help="share of predictions with masks of their own")
    args = parser.parse_args()
    if "cpp" not in available_backends():
        parser.error("the C++ operators are not available here, so there is nothing to compare numpy with")
    for count in args.predictions:
        compare(args.videos, count, args.distinct)
        peak = in_new_process(measure_memory, args.videos, count, args.distinct) / 2**20
        print(f"peak memory above the annotations', one video's predictions included: {peak:.0f} MiB")


if __name__ == "__main__":
    main()

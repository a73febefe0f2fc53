"""Speed and memory of the video metric beside a plain pycocotools implementation, on a synthetic YouTube-VIS-like set.

The set has the shape of YouTube-VIS 2019's validation part: 302 videos of 27 frames at 720×1280, 40 categories, 1 to 4
objects a video, mostly of one category; annotations are run lengths as in the official files, predictions compressed.
Every prediction is a disturbed copy of one of the video's objects, in its category or (30 %) another. With `--distinct`
below 1, predictions share masks, as a model's best (query, class) pairs do: 0.5 means one mask for two predictions.

The rival is what pycocotools offers for tracks: two `merge` and two `area` for each pair of a prediction and an object
of one video and category, frame by frame, then COCO's matching in loops. Both score the same videos in turns, in one
process and one thread, and must agree to 1e-9. Of three times the fastest counts, of the processor's and the wall
clock's each, so that other work on the machine matters less (it still competes for cache and memory).

    python benchmarks/benchmark_metric.py                    # 10 and 100 predictions a video
    python benchmarks/benchmark_metric.py --predictions 10 --videos 60
    VITA_HF_KERNELS=off python benchmarks/benchmark_metric.py    # without the compiled functions
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from vita_hf.scoring import VisEvaluator

HEIGHT, WIDTH, FRAMES, CATEGORIES = 720, 1280, 27, 40


# ------------------------------------------------------------------------------------------------ the synthetic set
def random_object(rng: np.random.Generator) -> dict:
    """A blob that moves: its centre, speed, half sizes, and what makes its outline uneven."""
    half = np.clip(rng.lognormal(np.log([115, 95]), 0.5), 15, [450, 300])
    return {
        "center": rng.uniform([150, 100], [WIDTH - 150, HEIGHT - 100]),
        "speed": rng.normal(0, 5, 2),
        "half": half,
        "waves": rng.uniform(0, 6.28, 3),
        "has_hole": rng.random() < 0.3,
    }


def disturb(blob: dict, rng: np.random.Generator) -> dict:
    """Somebody's idea of the same object: shifted and of another size, by little or by much."""
    amount = rng.choice([0.02, 0.1, 0.5])
    return {
        **blob,
        "center": blob["center"] + rng.normal(0, amount, 2) * blob["half"],
        "half": blob["half"] * np.exp(rng.normal(0, amount, 2)),
        "waves": blob["waves"] + rng.normal(0, 3 * amount, 3),
    }


def run_lengths(blob: dict, frame: int) -> list[int]:
    """The blob's mask in one frame."""
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
    bounds = (rows + columns[:, None] * HEIGHT).reshape(-1, 2)
    bounds = bounds[bounds[:, 1] > bounds[:, 0]]
    if not len(bounds):
        return [HEIGHT * WIDTH]
    touching = bounds[1:, 0] == bounds[:-1, 1]
    bounds = np.stack([bounds[np.append(True, ~touching), 0], bounds[np.append(~touching, True), 1]], axis=1)
    return np.diff(bounds.reshape(-1), prepend=0, append=HEIGHT * WIDTH).tolist()


def area(runs: list[int]) -> int:
    return sum(runs[1::2])


def make_annotations(num_videos: int) -> tuple[dict, list[list[tuple[dict, int]]]]:
    """The annotation file's content, and each video's objects with their categories."""
    rng = np.random.default_rng(0)
    videos, annotations, objects = [], [], []
    for video_id in range(1, num_videos + 1):
        videos.append({"id": video_id, "height": HEIGHT, "width": WIDTH, "length": FRAMES})
        main, here = int(rng.integers(1, CATEGORIES + 1)), []
        for _ in range(rng.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08])):
            category = main if rng.random() < 0.75 else int(rng.integers(1, CATEGORIES + 1))
            blob = random_object(rng)
            here.append((blob, category))
            runs = [run_lengths(blob, frame) for frame in range(FRAMES)]
            present = [area(run) > 0 and rng.random() > 0.03 for run in runs]
            masks = [{"size": [HEIGHT, WIDTH], "counts": r} if p else None for r, p in zip(runs, present)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "video_id": video_id,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentations": masks,
                    "areas": [area(r) if p else None for r, p in zip(runs, present)],
                }
            )
        objects.append(here)
    categories = [{"id": c, "name": f"category {c}"} for c in range(1, CATEGORIES + 1)]
    return {"videos": videos, "categories": categories, "annotations": annotations}, objects


def make_predictions(video_id: int, objects: list[tuple[dict, int]], count: int, distinct: float) -> list[dict]:
    """One video's predictions, as they lie in a results file."""
    rng = np.random.default_rng([1, video_id])
    tracks = []
    for _ in range(max(1, round(count * distinct))):
        blob, category = objects[rng.integers(len(objects))]
        blob = disturb(blob, rng)
        masks = []
        for frame in range(FRAMES):
            rle = {"size": [HEIGHT, WIDTH], "counts": run_lengths(blob, frame)}
            counts = mask_utils.frPyObjects(rle, HEIGHT, WIDTH)["counts"].decode()
            masks.append({"size": [HEIGHT, WIDTH], "counts": counts})
        tracks.append((masks, category))
    predictions = []
    for index in range(count):
        masks, category = tracks[index % len(tracks)]
        if rng.random() < 0.3:
            category = int(rng.integers(1, CATEGORIES + 1))
        score = float(rng.random())
        entry = {"video_id": video_id, "category_id": category, "score": score, "segmentations": masks}
        predictions.append(entry)
    return predictions


# ------------------------------------------------------------------------------------------------ the rival
class PlainEvaluator:
    """The metric in plain Python and pycocotools: the four area ranges and three limits of COCO's twelve numbers."""

    def __init__(self, annotations: dict):
        self.categories = [c["id"] for c in annotations["categories"]]
        self.objects = defaultdict(list)
        for annotation in annotations["annotations"]:
            masks = [m and mask_utils.frPyObjects(m, *m["size"]) for m in annotation["segmentations"]]
            key = annotation["video_id"], annotation["category_id"]
            self.objects[key].append((masks, mean_area(annotation["areas"]), annotation["iscrowd"]))
        self.videos = [video["id"] for video in annotations["videos"]]
        self.predictions = {}

    def add(self, predictions: list[dict]) -> None:
        groups = defaultdict(list)
        for prediction in predictions:
            masks = prediction["segmentations"]
            average = mean_area([m and int(mask_utils.area(m)) for m in masks])
            groups[prediction["video_id"], prediction["category_id"]].append((prediction["score"], average, masks))
        for key, group in groups.items():
            group = sorted(group, key=lambda item: -item[0])[:100]
            table = [[self.iou(masks, other) for other, _, _ in self.objects[key]] for _, _, masks in group]
            self.predictions[key] = [(score, average, row) for (score, average, _), row in zip(group, table)]

    @staticmethod
    def iou(first: list, second: list) -> float:
        shared = total = 0
        for a, b in zip(first, second):
            if a and b:
                shared += mask_utils.area(mask_utils.merge([a, b], True))
                total += mask_utils.area(mask_utils.merge([a, b], False))
            elif a or b:
                total += mask_utils.area(a or b)
        return shared / total if total else 0.0

    def compute(self) -> dict[str, float]:
        precision, recall = defaultdict(list), defaultdict(list)
        ranges = {"": (0, 1e10), "s": (0, 128**2), "m": (128**2, 256**2), "l": (256**2, 1e10)}
        for category in self.categories:
            for name, (low, high) in ranges.items():
                rows, num_objects = [], 0
                for video in self.videos:
                    objects = self.objects.get((video, category), [])
                    ignored = [crowd or not low <= size <= high for _, size, crowd in objects]
                    num_objects += ignored.count(False)
                    rows += self.match(self.predictions.get((video, category), []), objects, ignored, low, high)
                if not num_objects:
                    continue
                rows.sort(key=lambda row: -row[0])
                for limit in (1, 10, 100):
                    kept = [row for row in rows if row[1] < limit]
                    for step in range(10):
                        hits = np.array([row[2][step] == 1 for row in kept], bool).cumsum()
                        misses = np.array([row[2][step] == 0 for row in kept], bool).cumsum()
                        recall[name, limit].append(hits[-1] / num_objects if len(kept) else 0.0)
                        if limit == 100:
                            reached = np.zeros(101)
                            if len(kept):
                                values = hits / (hits + misses + np.spacing(1))
                                values = np.maximum.accumulate(values[::-1])[::-1]
                                places = np.searchsorted(hits / num_objects, np.linspace(0, 1, 101))
                                reached[places < len(kept)] = values[places[places < len(kept)]]
                            precision[name, step].append(reached.mean())
        result = {"AP": np.mean([v for step in range(10) for v in precision["", step]])}
        result |= {"AP50": np.mean(precision["", 0]), "AP75": np.mean(precision["", 5])}
        for name in "sml":
            result[f"AP{name}"] = np.mean([v for step in range(10) for v in precision[name, step]] or [-1])
            result[f"AR{name}"] = np.mean(recall[name, 100] or [-1])
        return result | {f"AR{limit}": np.mean(recall["", limit]) for limit in (1, 10, 100)}

    @staticmethod
    def match(predictions: list, objects: list, ignored: list[bool], low: float, high: float) -> list:
        """For each prediction its score, rank and, for each threshold, 1 (hit), 0 (miss) or −1 (ignored)."""
        order = sorted(range(len(objects)), key=lambda index: ignored[index])
        rows = [(score, rank, []) for rank, (score, _, _) in enumerate(predictions)]
        for threshold in np.linspace(0.5, 0.95, 10):
            taken = set()
            for (_, average, ious), (_, _, outcome) in zip(predictions, rows):
                best, found = threshold, None
                for index in order:
                    if index in taken and not objects[index][2]:
                        continue
                    if found is not None and not ignored[found] and ignored[index]:
                        break
                    if ious[index] >= best:
                        best, found = ious[index], index
                if found is None:
                    outcome.append(0 if low <= average <= high else -1)
                else:
                    taken.add(found)
                    outcome.append(-1 if ignored[found] else 1)
        return rows


def mean_area(areas: list) -> float:
    areas = [a for a in areas if a]
    return sum(areas) / len(areas) if areas else 0.0


# ------------------------------------------------------------------------------------------------ measuring
def compare(num_videos: int, count: int, distinct: float) -> None:
    """Scores every video with both, in turns."""
    annotations, objects = make_annotations(num_videos)
    builders = {"VisEvaluator": VisEvaluator, "plain pycocotools": PlainEvaluator}
    times = {name: defaultdict(float) for name in builders}  # of the processor
    wall = dict.fromkeys(builders, 0.0)
    evaluators = {}
    json_time = 0.0

    def timed(what, functions):
        """Runs one function for each name in turns, three times; returns the last results."""
        spent, results = {name: [] for name in functions}, {}
        for turn in range(3):
            for name in list(functions)[:: 1 if turn % 2 else -1]:
                start = time.process_time(), time.perf_counter()
                results[name] = functions[name]()
                spent[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
        for name, seconds in spent.items():
            fastest = [min(column) for column in zip(*seconds)]
            times[name][what] += fastest[0]
            wall[name] += fastest[1]
        return results

    evaluators = timed("annotations", {name: lambda b=build: b(annotations) for name, build in builders.items()})
    characters = pairs = 0
    for index, video in enumerate(annotations["videos"]):
        text = json.dumps(make_predictions(video["id"], objects[index], count, distinct))
        start = time.process_time()
        predictions = json.loads(text)
        json_time += time.process_time() - start
        characters += len(text)
        categories = [category for _, category in objects[index]]
        pairs += sum(categories.count(p["category_id"]) for p in predictions)
        trials = {"VisEvaluator": lambda p=predictions: add_and_forget(evaluators["VisEvaluator"], p)}
        trials["plain pycocotools"] = lambda p=predictions: evaluators["plain pycocotools"].add(p)
        timed("overlaps", trials)
        evaluators["VisEvaluator"].add(predictions)
    results = timed("matching", {name: evaluator.compute for name, evaluator in evaluators.items()})

    ours, rival = results["VisEvaluator"], results["plain pycocotools"]
    assert all(abs(ours[key] - value) < 1e-9 for key, value in rival.items()), (ours, rival)
    total = {name: sum(parts.values()) for name, parts in times.items()}
    masks = num_videos * count * FRAMES
    print(f"\n{num_videos} videos × {FRAMES} frames × {count} predictions ({distinct:g} distinct), AP {ours['AP']:.4f}")
    print(
        f"  {characters / masks:.0f} characters of json a mask, {pairs / num_videos / count:.2f} objects a prediction"
    )
    print(f"  {'processor seconds':20}{'annotations':>12}{'overlaps':>10}{'matching':>10}{'total':>9}{'wall':>9}")
    for name, parts in times.items():
        cells = [f"{parts[what]:.3f}" for what in ("annotations", "overlaps", "matching")]
        print(f"  {name:20}{cells[0]:>12}{cells[1]:>10}{cells[2]:>10}{total[name]:9.3f}{wall[name]:9.3f}")
    ratios = [seconds["plain pycocotools"] / seconds["VisEvaluator"] for seconds in (total, wall)]
    print(f"  VisEvaluator is {ratios[0]:.1f} times as fast, {ratios[1]:.1f} times by the wall clock")
    print(f"  reading the predictions' json, not part of the above: {json_time:.3f} s")


def add_and_forget(evaluator: VisEvaluator, predictions: list[dict]) -> None:
    evaluator.add(predictions)
    evaluator.forget(predictions[0]["video_id"])


def measure_memory(num_videos: int, count: int, distinct: float) -> None:
    """Peak memory above that of the annotations, predictions added video by video. Run in a process of its own."""
    annotations, objects = make_annotations(num_videos)
    evaluator = VisEvaluator(annotations)
    before = reset_peak()
    for index, video in enumerate(annotations["videos"]):
        evaluator.add(make_predictions(video["id"], objects[index], count, distinct))
    evaluator.compute()
    print(f"  peak memory above the annotations', one video's predictions included: {peak() - before:.0f} MiB")


def reset_peak() -> float:
    """Makes the peak the present use, where Linux can, and returns it in MiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("  (the peak cannot be reset here: what making the annotations took hides some of it)")
    return peak()


def peak() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=302)
    parser.add_argument("--predictions", type=int, nargs="+", default=[10, 100], help="a video")
    parser.add_argument("--distinct", type=float, default=1.0, help="share of predictions with masks of their own")
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for count in options.predictions:
        if options.memory_only:
            measure_memory(options.videos, count, options.distinct)
            continue
        compare(options.videos, count, options.distinct)
        sys.stdout.flush()
        settings = ["--videos", options.videos, "--predictions", count, "--distinct", options.distinct]
        subprocess.run([sys.executable, __file__, "--memory-only", *map(str, settings)], check=True)


if __name__ == "__main__":
    main()

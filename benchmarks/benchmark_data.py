"""Time reading the annotation file of a dataset like YouTube-VIS 2019: the first time, from the cache, and per row.

Makes a file with 2,238 videos, 61,845 frames of 720×1280 and 3,774 tracks of RLEs (but no images, which reading does
not decode), reads it in a new process, then again in another one. Imports are not timed. Absolute times depend on the
machine and its load (`read_cpu_s` less so).

    python benchmarks/benchmark_data.py                   # compressed RLEs
    python benchmarks/benchmark_data.py --uncompressed    # lists of run lengths, which the reader compresses
"""

import argparse
import json
import pickle
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from measuring import in_new_process
from vita_hf.data.datasets import read_ytvis
from vita_hf.data.schema import without_empty
from vita_hf.ops.rle import compress

VIDEOS, FRAMES, TRACKS, HEIGHT, WIDTH, CATEGORIES = 2238, 61845, 3774, 720, 1280, 40


def draw_ellipse(rng: np.random.Generator, frame: int, shape: np.ndarray) -> list[int]:
    """Return the run lengths of an ellipse with an uneven outline that moves from frame to frame."""
    x, y = shape[:2] + 3 * frame * (shape[2:4] - 0.5)
    half_width, half_height = 40 + 160 * shape[4:6]
    columns = np.arange(max(0, int(x - half_width)), min(WIDTH, int(x + half_width)))
    reach = np.sqrt(np.maximum(0, 1 - ((columns - x) / half_width) ** 2)) * half_height
    reach += rng.integers(0, 6, len(columns))
    tops = np.clip(y - reach, 0, HEIGHT).astype(int)
    bottoms = np.clip(y + reach, tops + 1, HEIGHT).astype(int)
    edges = (columns[:, None] * HEIGHT + np.stack([tops, bottoms], 1)).reshape(-1)
    return np.diff(edges, prepend=0, append=HEIGHT * WIDTH).tolist()


def make_annotations(path: Path, num_videos: int, compressed: bool) -> None:
    """Write an annotation file in the proportions of YouTube-VIS 2019's train.json, scaled to a number of videos."""
    rng, scale = np.random.default_rng(0), num_videos / VIDEOS
    frames, tracks = round(FRAMES * scale), round(TRACKS * scale)
    videos, annotations = [], []
    for index in range(num_videos):
        length = frames // num_videos + (index < frames % num_videos)
        names = [f"{index:010x}/{5 * t:05d}.jpg" for t in range(length)]
        videos.append({"id": index + 1, "height": HEIGHT, "width": WIDTH, "length": length, "file_names": names})
    owners = [*range(num_videos), *rng.integers(0, num_videos, tracks - num_videos).tolist()]
    for index, owner in enumerate(owners):
        shape = rng.random(6) * [WIDTH, HEIGHT, 1, 1, 1, 1]
        masks: list[dict | None] = []
        for frame in range(videos[owner]["length"]):
            mask = None
            if rng.random() >= 0.06:
                counts = draw_ellipse(rng, frame, shape)
                mask = {"size": [HEIGHT, WIDTH], "counts": compress(counts, HEIGHT * WIDTH) if compressed else counts}
            masks.append(mask)
        entry = {"id": index + 1, "video_id": owner + 1, "category_id": index % CATEGORIES + 1, "iscrowd": 0}
        entry |= {"segmentations": masks, "bboxes": [mask and [0.0, 0.0, 1.0, 1.0] for mask in masks]}
        annotations.append({**entry, "areas": [mask and 1.0 for mask in masks]})
    categories = [{"id": key, "name": f"class {key}"} for key in range(1, CATEGORIES + 1)]
    path.write_text(json.dumps({"videos": videos, "annotations": annotations, "categories": categories}))
    for video in videos[:: max(1, num_videos // 8)]:  # the reader checks that some frames exist
        frame = path.parent / video["file_names"][0]
        frame.parent.mkdir(exist_ok=True)
        frame.touch()


def read(path: Path) -> dict[str, float]:
    """Time the reader, and measure memory and file sizes."""
    started, started_cpu = time.perf_counter(), time.process_time()
    dataset = read_ytvis(path, path.parent, cache_dir=path.parent / "cache")
    figures = {"read_s": time.perf_counter() - started, "read_cpu_s": time.process_time() - started_cpu}
    started = time.perf_counter()
    rows = without_empty(dataset.rows)
    figures["without_empty_s"] = time.perf_counter() - started
    order = random.Random(0).choices(range(len(rows)), k=200)
    started = time.perf_counter()
    for index in order:
        rows[index]
    figures["row_ms"] = (time.perf_counter() - started) / len(order) * 1000
    figures["videos"], figures["frames"] = len(rows), sum(map(len, rows["frames"]))
    figures["tracks"] = sum(map(len, rows["instances"]))
    figures["pickle_kb"] = len(pickle.dumps(dataset)) / 1000
    figures["arrow_mb"] = sum(Path(file["filename"]).stat().st_size for file in rows.cache_files) / 1e6
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--uncompressed", action="store_true", help="write RLEs as lists")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.json")
        make_annotations(path, args.videos, not args.uncompressed)
        print(f"{path.stat().st_size / 1e6:.0f} MB of json")
        for turn in ("first", "second"):
            figures = in_new_process(read, path)
            print(f"{turn} time: " + ", ".join(f"{key} {value:.5g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()

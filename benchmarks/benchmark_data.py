"""How long the annotation file of a set of YouTube-VIS 2019's size takes: the first time, from the cache, and a row.

Makes a file with 2,238 videos, 61,845 frames of 720×1280 and 3,774 tracks of run lengths (no images: reading draws no
frame), reads it in a fresh process, then again in another one. Times are after the imports; absolute times depend on
the machine, and on what else it does (`read_cpu_s` less so).

    python benchmarks/benchmark_data.py                       # compressed run lengths
    python benchmarks/benchmark_data.py --uncompressed        # lists of run lengths, which are compressed at reading
"""

import argparse
import json
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

from vita_hf.data.readers import read_ytvis
from vita_hf.data.schema import without_empty

VIDEOS, FRAMES, TRACKS, HEIGHT, WIDTH, CATEGORIES = 2238, 61845, 3774, 720, 1280, 40


def blob(rng: np.random.Generator, frame: int, seed: np.ndarray) -> list[int]:
    """Run lengths of an ellipse with an uneven outline, somewhere in the picture."""
    x, y = seed[:2] + 3 * frame * (seed[2:4] - 0.5)
    half_width, half_height = 40 + 160 * seed[4:6]
    columns = np.arange(max(0, int(x - half_width)), min(WIDTH, int(x + half_width)))
    reach = np.sqrt(np.maximum(0, 1 - ((columns - x) / half_width) ** 2)) * half_height + rng.integers(
        0, 6, len(columns)
    )
    tops = np.clip(y - reach, 0, HEIGHT).astype(int)
    bottoms = np.clip(y + reach, tops + 1, HEIGHT).astype(int)
    starts, ends = columns * HEIGHT + tops, columns * HEIGHT + bottoms
    edges = np.stack([starts, ends], 1).reshape(-1)
    return np.diff(edges, prepend=0, append=HEIGHT * WIDTH).tolist()


def make_annotations(path: Path, videos: int, compress: bool) -> None:
    """Write an annotation file with the shape of YouTube-VIS 2019's train.json, scaled to so many videos."""
    rng, scale = np.random.default_rng(0), videos / VIDEOS
    frames, tracks = round(FRAMES * scale), round(TRACKS * scale)
    lengths = [frames // videos + (index < frames % videos) for index in range(videos)]
    owners = [*range(videos), *rng.integers(0, videos, tracks - videos).tolist()]
    video_list, annotations = [], []
    for index, length in enumerate(lengths):
        names = [f"{index:010x}/{5 * t:05d}.jpg" for t in range(length)]
        video = {"id": index + 1, "height": HEIGHT, "width": WIDTH, "length": length, "file_names": names}
        video_list.append(video)
    for index, owner in enumerate(owners):
        seed = rng.random(6) * [WIDTH, HEIGHT, 1, 1, 1, 1]
        masks: list[dict | None] = []
        for frame in range(lengths[owner]):
            if rng.random() < 0.06:
                masks.append(None)
                continue
            mask = {"size": [HEIGHT, WIDTH], "counts": blob(rng, frame, seed)}
            if compress:
                mask["counts"] = mask_api.frPyObjects(mask, HEIGHT, WIDTH)["counts"].decode()
            masks.append(mask)
        entry = {"id": index + 1, "video_id": owner + 1, "category_id": index % CATEGORIES + 1, "iscrowd": 0}
        entry |= {"segmentations": masks, "bboxes": [mask and [0.0, 0.0, 1.0, 1.0] for mask in masks]}
        annotations.append({**entry, "areas": [mask and 1.0 for mask in masks]})
    categories = [{"id": key, "name": f"class {key}"} for key in range(1, CATEGORIES + 1)]
    path.write_text(json.dumps({"videos": video_list, "annotations": annotations, "categories": categories}))
    for video in video_list[:: max(1, videos // 8)]:  # a look at some frames is part of reading
        frame = path.parent / video["file_names"][0]
        frame.parent.mkdir(exist_ok=True)
        frame.touch()


def read(path: Path) -> dict[str, float]:
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
    parser.add_argument("--uncompressed", action="store_true", help="run lengths as lists")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)  # the fresh process
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.json")
        make_annotations(path, args.videos, not args.uncompressed)
        print(f"{path.stat().st_size / 1e6:.0f} MB of json")
        for turn in ("first", "second"):
            command = [sys.executable, __file__, "--read", str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            print(f"{turn} time: " + ", ".join(f"{key} {value:.5g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()

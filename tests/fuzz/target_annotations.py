"""Annotation files, read for training, evaluation, scoring and the checker."""

import random
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import pyarrow as pa
from PIL import Image

from fuzz.driver import refusals
from fuzz.mutations import mutate_json
from vita_hf.data.checking import check_annotations
from vita_hf.data.classes import ClassChoice
from vita_hf.data.clips.masks import frame_masks
from vita_hf.data.datasets import generate_rows
from vita_hf.data.frames import BrokenSampleError
from vita_hf.data.schema import VIDEO_FEATURES
from vita_hf.evaluation.splits import check_split, read_split
from vita_hf.ops.rle import compress
from vita_hf.scoring import GroundTruth

SUFFIX = ".json"
HEIGHT, WIDTH = 6, 8
COUNTS = compress([10, 4, 34], HEIGHT * WIDTH)
SQUARE = [1.0, 1.0, 4.0, 1.0, 4.0, 4.0, 1.0, 4.0]


def youtube_vis() -> dict:
    """Return a small annotation file with masks of all forms."""
    size = [HEIGHT, WIDTH]
    masks = [{"size": size, "counts": COUNTS}, {"size": size, "counts": [10, 20, 18]}, [SQUARE], None]
    videos = [
        {"id": key, "height": HEIGHT, "width": WIDTH, "length": 4, "file_names": [f"{t}.png" for t in range(4)]}
        for key in (1, 2)
    ]
    annotations = [
        {
            "id": key,
            "video_id": 1 + key % 2,
            "category_id": 5,
            "iscrowd": 0,
            "segmentations": masks,
            "bboxes": [[1, 1, 3, 3], [1, 1, 3, 3], [1, 1, 3, 3], None],
            "areas": [4, 20, 9, None],
            "occlusion": ["no_occlusion", "slight_occlusion", "severe_occlusion", None],
        }
        for key in (1, 2, 3)
    ]
    return {
        "videos": videos,
        "annotations": annotations,
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
    }


def coco() -> dict:
    """Return a small annotation file of images."""
    images = [{"id": key, "height": HEIGHT, "width": WIDTH, "file_name": f"{key}.png"} for key in (1, 2)]
    common = {"image_id": 1, "category_id": 5, "iscrowd": 0, "area": 9, "bbox": [1, 1, 3, 3]}
    masks = [[SQUARE], {"size": [HEIGHT, WIDTH], "counts": [10, 20, 18]}]
    annotations = [{"id": key, "segmentation": mask, **common} for key, mask in enumerate(masks, 1)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "cat"}]}


def mutate(rng: random.Random) -> bytes:
    content = rng.choice((youtube_vis, youtube_vis, coco, lambda: youtube_vis()["annotations"]))()
    return mutate_json(rng, content)


def check(path: Path) -> None:
    frames = path.parent / "frames"
    if not frames.exists():
        frames.mkdir()
        for index in range(4):
            Image.new("RGB", (WIDTH, HEIGHT)).save(frames / f"{index}.png")
    for form in ("ytvis", "coco"):
        with refusals(path):
            list(map(str, check_annotations(path, frames, form=form, progress=False)))
        for skip_broken in (False, True):
            with refusals(path):
                train(path, form, str(frames), skip_broken)
    with refusals(path):
        check_split(read_split(path, frames), {0: "cat", 1: "dog"})
    with refusals(path):
        GroundTruth(path, ("ytvis", "coco", "tracks"))


def train(path: Path, form: str, images: str, skip_broken: bool) -> None:
    """Make the rows that training reads, and rasterize their masks."""
    classes, summary = astuple(ClassChoice()), path.with_suffix(".summary")
    for row in generate_rows(str(path), images, form, classes, skip_broken, str(summary)):
        pa.array([VIDEO_FEATURES.encode_example(row)], VIDEO_FEATURES.type)
        for frame in range(min(len(row["frames"]), 5) if row["height"] * row["width"] < 10**6 else 0):
            with suppress(BrokenSampleError):  # it names video and annotation: the file is no longer known
                frame_masks(row, row["instances"], frame, [])

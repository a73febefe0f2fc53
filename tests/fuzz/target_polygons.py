"""Polygons, read for scoring and rasterized for training."""

import json
import random
from pathlib import Path

import numpy as np

from fuzz.driver import refusals
from fuzz.mutations import mutate_json
from vita_hf.data.clips.masks import frame_masks
from vita_hf.ops.rle import decode, read_polygon, read_segmentation

SUFFIX = ".json"
COORDINATES = (
    0,
    0.5,
    1,
    3,
    8,
    -1,
    -0.0,
    1e-300,
    100,
    65536,
    1e6,
    8e6,
    2**22,
    1e7,
    1e8,
    2**31,
    -(2**31),
    2**63,
    1e18,
    1e300,
)


def mutate(rng: random.Random) -> bytes:
    polygons = [
        [rng.choice(COORDINATES) for _ in range(rng.choice((6, 6, 8, 40)))] for _ in range(rng.choice((1, 1, 3)))
    ]
    if rng.random() < 0.7:
        return json.dumps(polygons).encode()
    return mutate_json(rng, polygons)


def check(path: Path) -> None:
    try:
        polygons = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    for height, width in ((6, 8), (2000, 3000)):
        with refusals(path):
            read(path, polygons, height, width)


def read(path: Path, polygons: object, height: int, width: int) -> None:
    """Read the polygons of one object for scoring and for training, and compare."""
    try:
        mask = read_segmentation(polygons, height, width)
        points = [read_polygon(polygon) for polygon in polygons or []] if isinstance(polygons, list) else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    _, _, areas = decode([mask], height * width)
    if points:
        row = {"video_id": 1, "height": height, "width": width}
        instance = {"id": 1, "segmentations": [{"rle": None, "polygons": points}]}
        assert np.array_equal(frame_masks(row, [instance], 0, []).sum(), areas[0])

"""RLEs: NumPy and C++ accept the same, and decode them as pycocotools does."""

import json
import random
from pathlib import Path
from unittest import mock

import numpy as np
from pycocotools import mask as mask_api

from fuzz.mutations import mutate_bytes
from vita_hf.ops.rle import compress, decode, decode_masks, read_segmentation

HEIGHT, WIDTH = 9, 11
NUMBERS = (-1, 0, 10**6, 2**31, 2**62, 2**63, 10**30, 0.5, None, "1", [4], True)


def mutate(rng: random.Random) -> bytes:
    """Make a height, a width and the counts of a mask, as json: a string or a list."""
    pixels, runs = HEIGHT * WIDTH, [0]
    while sum(runs) < pixels:
        runs.append(min(rng.choice((0, 1, 2, 7, 30)), pixels - sum(runs)))
    counts = runs if rng.random() < 0.3 else compress(runs, pixels)
    height, width = HEIGHT, WIDTH
    if rng.random() < 0.7:
        if isinstance(counts, str):
            counts = mutate_bytes(rng, counts.encode()).decode("latin-1")[: rng.choice((3, 1000))]
        else:
            counts[rng.randrange(len(counts))] = rng.choice(NUMBERS)
        height, width = rng.choice((HEIGHT, HEIGHT, 1, 2**14)), rng.choice((WIDTH, WIDTH, 1, 2**15))
    return json.dumps([height, width, counts]).encode()


def check(path: Path) -> None:
    height, width, counts = json.loads(path.read_bytes())
    rle = {"size": [height, width], "counts": counts}
    outcomes = []
    for kernels in ("auto", "off"):
        with mock.patch.dict("os.environ", VITA_HF_KERNELS=kernels):
            try:
                mask = read_segmentation(rle, height, width)
                pairs, _, areas = decode([mask], height * width)
                outcomes.append((pairs.tolist(), areas.tolist()))
            except ValueError as error:
                message = str(error)
                outcomes.append(message)
    assert outcomes[0] == outcomes[1], outcomes
    if isinstance(outcomes[0], str):
        raise ValueError(f"{path}: {message}")
    if height * width < 10**6:
        if isinstance(mask, list):
            mask = compress(mask, height * width)
        expected = mask_api.decode({"size": [height, width], "counts": mask.encode()})
        assert np.array_equal(decode_masks([mask], height, width)[0], expected)

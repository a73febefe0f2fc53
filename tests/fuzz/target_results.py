"""`results.json`, as `VideoInstances` reads it."""

import random
from pathlib import Path

from fuzz.mutations import mutate_json
from vita_hf import VideoInstances
from vita_hf.ops.rle import compress

SUFFIX = ".json"


def mutate(rng: random.Random) -> bytes:
    counts = [compress(runs, 48) for runs in ([48], [0, 48], [10, 4, 34], [0, 1, 2, 3, 42])]
    tracks = [
        {
            "track_id": key,
            "label": key,
            "label_name": "cat",
            "score": 0.5,
            "query_index": 3,
            "segmentations": [{"size": [6, 8], "counts": rng.choice(counts)} for _ in range(3)],
        }
        for key in range(2)
    ]
    content = {
        "format": "vita_hf.VideoInstances/1",
        "size": [6, 8],
        "num_frames": 3,
        "fps": 25.0,
        "frame_indices": [0, 2, 4],
        "id2label": {"0": "cat", "1": "dog"},
        "tracks": tracks,
    }
    return mutate_json(rng, content)


def check(path: Path) -> None:
    result = VideoInstances.from_json(path)
    assert result.areas.shape == result.boxes.shape[:2] == (len(result), result.num_frames)
    assert len(result.summary()) == len(result.label_names) == len(result)
    assert result.timestamps is None or len(result.timestamps) == result.num_frames
    result.to_ytvis(1)
    assert VideoInstances.from_json(result.to_json()).to_json() == result.to_json()
    if result.num_frames and result.size[0] * result.size[1] < 10**6:
        assert result.masks_at(-1).shape == (len(result), *result.size)
        result.label_map(0)

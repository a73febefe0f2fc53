"""Small annotation files with their frames, for the tests of `vita_hf.data`."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

HEIGHT, WIDTH = 24, 32
SQUARE = [4.0, 4.0, 12.0, 4.0, 12.0, 12.0, 4.0, 12.0]


def random_mask(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
    mask[y : y + rng.integers(3, 8), x : x + rng.integers(3, 8)] = 1
    return mask


def compressed(mask: np.ndarray) -> dict:
    """Encode a mask as pycocotools does, with a compressed string."""
    rle = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [*mask.shape], "counts": rle["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict:
    """Encode a mask as a list of run lengths, by their definition: column by column, background first."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return {"size": [*mask.shape], "counts": [0, *runs] if flat[0] else runs}


def box(segmentation) -> list | None:
    return None if segmentation is None else [1.0, 1.0, 5.0, 5.0]


def track(key: int, video: int, category: int, segmentations: list, **more) -> dict:
    entry = {"id": key, "video_id": video, "category_id": category, "iscrowd": 0, "segmentations": segmentations}
    return entry | {"bboxes": [box(segmentation) for segmentation in segmentations]} | more


def write_frames(folder: Path, names: list[str], size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


def make_ytvis(folder: Path, videos: int = 3, length: int = 4) -> dict:
    """
    Make the content of a file with `videos` videos of `length` frames, and write the frames below `folder / "frames"`.

    Each video has two annotations: compressed RLEs of category 2, absent from the first frame, and polygons of
    category 5.
    """
    entries, annotations = [], []
    for video in range(1, videos + 1):
        names = [f"v{video}/{t:05d}.jpg" for t in range(length)]
        write_frames(folder / "frames", names)
        entries.append({"id": video, "height": HEIGHT, "width": WIDTH, "length": length, "file_names": names})
        masks = [None, *(compressed(random_mask(100 * video + t)) for t in range(1, length))]
        annotations.append(track(10 * video + 1, video, 2, masks))
        annotations.append(track(10 * video + 2, video, 5, [[SQUARE] for _ in range(length)]))
    categories = [{"id": 5, "name": "wheel"}, {"id": 2, "name": "ball"}]
    return {"videos": entries, "annotations": annotations, "categories": categories}


def write(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content))
    return path

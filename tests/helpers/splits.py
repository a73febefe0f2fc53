"""A small dataset split on disk: twelve videos of two frames, and the same frames as images."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api

HEIGHT, WIDTH = 48, 64
CATEGORIES = [{"id": 3 * i + 1, "name": f"thing {i}"} for i in range(7)]


def write_split(folder: Path) -> None:
    """Write `frames/`, and the annotation files `videos.json`, `images.json` and `unannotated.json`."""
    rng = np.random.default_rng(0)
    videos, images, tracks, objects = [], [], [], []
    for video in range(12):
        names = [f"v{video:02d}/{frame:05d}.png" for frame in range(2)]
        (folder / "frames" / f"v{video:02d}").mkdir(parents=True)
        videos.append({"id": 100 + video, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": names})
        masks = [_rectangle(rng) for _ in names]
        category = CATEGORIES[video % 7]["id"]
        for name, mask in zip(names, masks):
            pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "frames" / name)
            image = {"id": 1000 + len(images), "height": HEIGHT, "width": WIDTH, "file_name": name}
            images.append(image)
            area = int(mask.sum())
            box = [float(x) for x in mask_api.toBbox(mask_api.encode(mask))]
            common = {"category_id": category, "iscrowd": 0, "area": area, "bbox": box}
            objects.append({"id": len(images), "image_id": image["id"], "segmentation": _rle(mask), **common})
        tracks.append(
            {
                "id": video + 1,
                "video_id": 100 + video,
                "category_id": category,
                "iscrowd": 0,
                "segmentations": [_rle(mask) for mask in masks],
                "bboxes": [[0, 0, 1, 1]] * 2,
                "areas": [int(mask.sum()) for mask in masks],
            }
        )
    for name, content in {
        "videos.json": {"videos": videos, "annotations": tracks},
        "images.json": {"images": images, "annotations": objects},
        "unannotated.json": {"videos": videos[:1]},
    }.items():
        (folder / name).write_text(json.dumps({"categories": CATEGORIES, **content}))


def _rectangle(rng) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    top, left = rng.integers(0, HEIGHT // 2), rng.integers(0, WIDTH // 2)
    mask[top : top + 20, left : left + 30] = 1
    return mask


def _rle(mask: np.ndarray) -> dict:
    encoded = mask_api.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}

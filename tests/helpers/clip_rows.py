"""Hand-made dataset rows for the tests of clips."""

import io

import numpy as np
from PIL import Image
from pycocotools import mask as mask_api


def png(pixels: np.ndarray) -> dict:
    """Encode uint8 (h, w, 3) as a frame of a row."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"path": None, "bytes": buffer.getvalue()}


def rle(mask: np.ndarray) -> dict:
    """Encode bool (h, w) as a segmentation."""
    return {"rle": mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode(), "polygons": None}


def polygons(*parts: list[float]) -> dict:
    return {"rle": None, "polygons": list(parts)}


def instance(segmentations: list, label: int = 0, iscrowd: bool = False, id: int = 1) -> dict:
    return {"id": id, "label": label, "iscrowd": iscrowd, "segmentations": segmentations}


def make_row(frames: list[np.ndarray], instances: list[dict], video_id: int = 7) -> dict:
    height, width = frames[0].shape[:2]
    frames = [png(frame) for frame in frames]
    return {"video_id": video_id, "height": height, "width": width, "frames": frames, "instances": instances}


def noise_row(length: int, height: int = 40, width: int = 56, video_id: int = 7) -> dict:
    """A video of noise with a rectangle that moves right, a triangle in the even frames, and a crowd."""
    rng = np.random.default_rng(video_id)
    frames = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(length)]
    boxes = []
    for t in range(length):
        mask = np.zeros((height, width), bool)
        mask[10:25, 5 + t : 25 + t] = True
        boxes.append(rle(mask))
    triangle = [polygons([30.0, 5.0, 50.0, 30.0, 20.0, 35.0]) if t % 2 == 0 else None for t in range(length)]
    crowd = [rle(np.ones((height, width), bool))] * length
    instances = [instance(boxes, 3, id=1), instance(triangle, 5, id=2), instance(crowd, 4, iscrowd=True, id=3)]
    return make_row(frames, instances, video_id)


def painted(mask: np.ndarray) -> np.ndarray:
    """Paint the mask white on black."""
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, axis=2)

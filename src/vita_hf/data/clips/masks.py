"""Turn the RLEs and polygons of a row into masks, transformed along with the clip."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ops.rle import RleError, decode_masks, encode_polygons
from ..frames import BrokenSampleError
from .transforms import Transform


def frame_masks(
    row: dict[str, Any], instances: Sequence[dict[str, Any]], frame: int, transforms: Sequence[Transform]
) -> np.ndarray:
    """
    Transform and rasterize the masks of N instances of a row in one frame: bool (N, h, w), False where absent.

    The transforms move the corners of polygons, which are rasterized last, and the pixels of decoded RLEs.

    Raises:
        BrokenSampleError: if an RLE does not cover the row's height × width, or a polygon is malformed or too large.
    """
    height, width = transforms[-1].new_size if transforms else (row["height"], row["width"])
    masks = np.zeros((len(instances), height, width), dtype=bool)
    rles, drawn = {}, {}
    for i, instance in enumerate(instances):
        segmentation = instance["segmentations"][frame]
        if not segmentation:
            continue
        if segmentation["rle"] is not None:
            rles[i] = segmentation["rle"]
        try:
            polygons = [_transform_polygon(polygon, transforms) for polygon in segmentation["polygons"] or []]
            polygons = [polygon for polygon in polygons if len(polygon) >= 6]  # the others were cropped away
            if polygons:
                drawn[i] = encode_polygons(polygons, height, width)
        except ValueError as error:
            where = f"annotation {instance['id']}, frame {frame}"
            raise BrokenSampleError("malformed", row["video_id"], where, str(error)) from None
    if drawn:
        masks[list(drawn)] = decode_masks([*drawn.values()], height, width)
    if rles:
        try:
            pixels = decode_masks([*rles.values()], row["height"], row["width"])
        except RleError as error:
            index, problem = next(iter(error.problems.items()))
            where = f"annotation {instances[[*rles][index]]['id']}, frame {frame}"
            raise BrokenSampleError("rle-corrupt", row["video_id"], where, problem) from None
        pixels = pixels.view(np.uint8)
        for transform in transforms:
            pixels = transform.masks(pixels)
        masks[list(rles)] = pixels
    return masks


def _transform_polygon(polygon: Sequence[float], transforms: Sequence[Transform]) -> list[float]:
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    for transform in transforms:
        points = transform.polygon(points)
    return points.ravel().tolist()

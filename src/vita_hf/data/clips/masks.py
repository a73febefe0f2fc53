"""Masks of one frame: from a row's RLEs and polygons, through the clip's transforms, to pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from ...ops.rle import RleError, decode
from ..frames import BrokenSampleError
from .transforms import Transform


def frame_masks(
    row: dict[str, Any], instances: Sequence[dict[str, Any]], frame: int, transforms: Sequence[Transform]
) -> np.ndarray:
    """
    Rasterise the masks of a row's instances in one frame, after the transforms.

    Polygons stay coordinates until after the last transform and are rasterised once. RLEs are decoded first; the
    transforms then move pixels (nearest neighbour).

    Args:
        row: A dataset row.
        instances: N of its instances.
        frame: Index of the frame in the row.
        transforms: Applied in this order.

    Returns:
        Bool array (N, h, w), with the size after the transforms; all False for an instance that is not in the frame.

    Raises:
        BrokenSampleError: if an RLE does not cover the row's height × width.
    """
    height, width = transforms[-1].new_size if transforms else (row["height"], row["width"])
    masks = np.zeros((len(instances), height, width), dtype=bool)
    segmentations = {i: instance["segmentations"][frame] for i, instance in enumerate(instances)}
    segmentations = {i: segmentation for i, segmentation in segmentations.items() if segmentation}

    rles = {i: segmentation["rle"] for i, segmentation in segmentations.items() if segmentation["rle"] is not None}
    if rles:
        pixels = _decode_rles(row, rles, instances, frame)
        for transform in transforms:
            pixels = transform.masks(pixels)
        masks[list(rles)] = pixels

    outlines = {}
    for i, segmentation in segmentations.items():
        polygons = [_transform_polygon(polygon, transforms) for polygon in segmentation["polygons"] or []]
        polygons = [polygon for polygon in polygons if len(polygon) >= 6]  # the others were cropped away
        if polygons:
            outlines[i] = mask_api.merge(mask_api.frPyObjects(polygons, height, width))
    if outlines:
        masks[list(outlines)] = mask_api.decode(list(outlines.values())).transpose(2, 0, 1)
    return masks


def _decode_rles(
    row: dict[str, Any], rles: dict[int, str], instances: Sequence[dict[str, Any]], frame: int
) -> np.ndarray:
    """Decode n RLEs, given by the indices of their instances: uint8 (n, h, w), column by column in memory."""
    height, width = row["height"], row["width"]
    try:
        pairs, _, _ = decode([*rles.values()], height * width)  # checks them, which pycocotools does not
    except RleError as error:
        index, problem = next(iter(error.problems.items()))
        where = f"annotation {instances[[*rles][index]]['id']}, frame {frame}"
        raise BrokenSampleError("rle-corrupt", row["video_id"], where, problem) from None
    pixels = np.repeat(np.tile(np.array([0, 1], dtype=np.uint8), len(pairs)), pairs.ravel())
    return pixels.reshape(-1, width, height).transpose(0, 2, 1)


def _transform_polygon(polygon: Sequence[float], transforms: Sequence[Transform]) -> list[float]:
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    for transform in transforms:
        points = transform.polygon(points)
    return points.ravel().tolist()

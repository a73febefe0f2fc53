"""Masks of one frame: from a row's run lengths and polygons, through the clip's transforms, to pixels."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_utils

from ...ops.rle import RleError, decode
from ..frames import BrokenSampleError
from .transforms import Transform


def frame_masks(row: dict, instances: Sequence[dict], frame: int, transforms: Sequence[Transform]) -> np.ndarray:
    """
    Make the masks of some of a row's instances in one frame, transformed.

    Polygons stay coordinates until after the last transform and are rasterised once. Run lengths are decoded first, and
    the pixels are moved (nearest neighbour).

    Args:
        row: a dataset row.
        instances: N of its instances; all zeros where an instance has no segmentation in this frame.
        frame: the frame's position in the row.
        transforms: applied in this order.

    Returns:
        bool (N, h, w), h and w after the transforms.

    Raises:
        BrokenSampleError: run lengths that don't fill the row's height × width.
    """
    height, width = transforms[-1].new_size if transforms else (row["height"], row["width"])
    masks = np.zeros((len(instances), height, width), dtype=bool)
    present = [(i, instance["segmentations"][frame]) for i, instance in enumerate(instances)]
    present = [(i, segmentation) for i, segmentation in present if segmentation]

    dense = [i for i, segmentation in present if segmentation["rle"] is not None]
    if dense:
        pixels = _decode_rles(row, [instances[i] for i in dense], frame)
        for transform in transforms:
            pixels = transform.masks(pixels)
        masks[dense] = pixels

    outlines = {}
    for i, segmentation in present:
        polygons = [_transform_polygon(polygon, transforms) for polygon in segmentation["polygons"] or []]
        polygons = [polygon for polygon in polygons if len(polygon) >= 6]  # others were cropped away
        if polygons:
            outlines[i] = mask_utils.merge(mask_utils.frPyObjects(polygons, height, width))
    if outlines:
        masks[list(outlines)] = mask_utils.decode(list(outlines.values())).transpose(2, 0, 1)
    return masks


def _decode_rles(row: dict, instances: Sequence[dict], frame: int) -> np.ndarray:
    """Decode the run lengths of N instances, which all have some: uint8 (N, h, w), column by column in memory."""
    height, width = row["height"], row["width"]
    rles = [instance["segmentations"][frame]["rle"] for instance in instances]
    try:
        runs, _, _ = decode(rles, height * width)  # checks them, which pycocotools doesn't
    except RleError as error:
        index, problem = next(iter(error.problems.items()))
        where = f"annotation {instances[index]['id']}, frame {frame}"
        raise BrokenSampleError("rle-corrupt", row["video_id"], where, problem) from None
    pixels = np.repeat(np.tile(np.array([0, 1], dtype=np.uint8), len(runs)), runs.ravel())
    return pixels.reshape(-1, width, height).transpose(0, 2, 1)


def _transform_polygon(polygon: Sequence[float], transforms: Sequence[Transform]) -> list[float]:
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    for transform in transforms:
        points = transform.polygon(points)
    return points.ravel().tolist()


__all__ = ["frame_masks"]

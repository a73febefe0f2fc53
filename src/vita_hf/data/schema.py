"""The row format of every training dataset: one row per video, frames as paths or bytes, masks still encoded."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Features, Image, IterableDataset, List, Value

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Part of every cache key; raise it when the readers make other rows."""

VIDEO_FEATURES = Features(
    {
        "video_id": Value("int64"),
        "height": Value("int32"),
        "width": Value("int32"),
        "frames": List(Image(decode=False)),
        "instances": List(
            {
                "id": Value("int64"),
                "label": Value("int64"),
                "iscrowd": Value("bool"),
                "segmentations": List({"rle": Value("string"), "polygons": List(List(Value("float64")))}),
            }
        ),
    }
)
"""The features of a row: a video of T frames (T = 1 for an image).

- `video_id`: The id of the video or image in the annotation file.
- `height`, `width`: The size of every frame in pixels.
- `frames`: T times `{"path": str | None, "bytes": bytes | None}`, an encoded image; see [`frames.decode_frame`].
- `instances`: The annotated objects, in the file's order. `id` is the annotation's; `label` a class index from 0;
  `segmentations` has T entries: None where the object is absent, else `{"rle", "polygons"}` with one of the two set:
  `rle` is the compressed `counts` string of a (height, width) mask, `polygons` a list of `[x0, y0, x1, y1, …]` in
  pixels. See [`clips.masks.frame_masks`].
"""


NOT_EMBEDDED = "expected frames with the bytes of their images; a foreign file's paths are not opened"


@dataclass(frozen=True)
class VideoDataset:
    """
    The result of every reader. It pickles as paths of memory-mapped files, so that workers share one copy.

    Attributes:
        rows: The rows, with [`VIDEO_FEATURES`]; an `IterableDataset` only if streaming was asked for.
        id2label: The names of the classes 0 … K-1.
        name: The dataset's name in logs and model cards.
        skipped: The number of videos that `skip_broken=True` left out.
    """

    rows: Dataset | IterableDataset
    id2label: dict[int, str]
    name: str
    skipped: int = 0


def has_objects(row: Mapping[str, Any]) -> bool:
    """Tell whether a row has an object to learn from: not a crowd, and present in some frame."""
    return any(not i["iscrowd"] and any(s is not None for s in i["segmentations"]) for i in row["instances"])


def without_empty(rows: Dataset) -> Dataset:
    """
    Leave out the rows without an object to learn from, see [`has_objects`], and log their number.

    Reads only Arrow columns, so that it takes a fraction of a second.

    Raises:
        ValueError: if no row would be left.
    """
    instances = rows.select_columns("instances").with_format("arrow")
    kept: list[int] = []
    first = 0
    for table in instances.iter(batch_size=1000):
        for chunk in table["instances"].chunks:
            # `flatten` and `value_parent_indices` read the same slice, and both skip null lists
            owners, fields = chunk.value_parent_indices(), chunk.flatten()
            segmentations = fields.field("segmentations")
            annotated = segmentations.value_parent_indices().filter(segmentations.flatten().is_valid())
            crowd = fields.field("iscrowd").to_numpy(zero_copy_only=False)
            kept_here = {owners[i].as_py() for i in annotated.unique().to_pylist() if not crowd[i]}
            kept += [first + row for row in sorted(kept_here)]
            first += len(chunk)
    if not kept:
        raise ValueError(f"none of the {len(rows)} videos or images has an annotated object that is no crowd")
    if len(kept) < len(rows):
        logger.info("left out %d of %d videos or images: no annotated object", len(rows) - len(kept), len(rows))
        rows = rows.select(kept)
    return rows

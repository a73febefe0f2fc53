"""The one form in which training sees every data set: a row a video, frames as paths or bytes, masks still encoded."""

import logging
from dataclasses import dataclass

import pyarrow.compute as pc
from datasets import Dataset, Features, Image, IterableDataset, List, Value

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Part of every cache key: raise it when the rows that the readers make change."""

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
"""A row, that is a video of T frames (T = 1: an image):

- `video_id`: the annotation file's id of the video or image.
- `height`, `width`: of every frame, in pixels.
- `frames`: T times `{"path": str | None, "bytes": bytes | None}`, an encoded image; decoded by [`rows.decode_frame`].
- `instances`: the annotated objects, in the file's order. `id` is the annotation's; `label` a 0-based class index;
  `segmentations` has T entries: `None` where the object is absent, else `{"rle", "polygons"}` with one of the two set:
  `rle` is the compressed `counts` string of a mask of (height, width), `polygons` a list of `[x0, y0, x1, y1, …]` in
  pixels. Rasterised by [`masks.frame_masks`].
"""


@dataclass(frozen=True)
class VideoDataset:
    """
    What every reader returns. Pickles as paths of memory-mapped files, so that workers share one copy.

    Attributes:
        rows: with [`VIDEO_FEATURES`]; an `IterableDataset` only where streaming was asked for.
        id2label: the classes that the rows' labels count, 0 … K-1.
        name: for logs and model cards.
        skipped: videos left out because of faults in the annotation file (`skip_broken=True`).
    """

    rows: Dataset | IterableDataset
    id2label: dict[int, str]
    name: str
    skipped: int = 0


def without_empty(rows: Dataset) -> Dataset:
    """
    Leave out videos and images without any object to learn from: none, only crowds, or none in any frame.

    Looks at the Arrow columns only, so that it takes a fraction of a second. Logs how many it left out.

    Raises:
        ValueError: nothing would be left.
    """
    instances = rows.select_columns("instances").with_format("arrow")
    kept: list[int] = []
    first = 0
    for table in instances.iter(batch_size=1000):
        for chunk in table["instances"].chunks:
            # `flatten` and `list_parent_indices` look at the same slice and both skip null lists
            owners, fields = pc.list_parent_indices(chunk), chunk.flatten()
            segmentations = fields.field("segmentations")
            annotated = pc.list_parent_indices(segmentations).filter(pc.is_valid(segmentations.flatten()))
            crowd = fields.field("iscrowd").to_numpy(zero_copy_only=False)
            rows_here = {owners[i].as_py() for i in pc.unique(annotated).to_pylist() if not crowd[i]}
            kept += [first + row for row in sorted(rows_here)]
            first += len(chunk)
    if not kept:
        raise ValueError(f"none of the {len(rows)} videos or images has an annotated object that is no crowd")
    if len(kept) < len(rows):
        logger.info("left out %d of %d videos or images: no annotated object", len(rows) - len(kept), len(rows))
        rows = rows.select(kept)
    return rows


__all__ = ["SCHEMA_VERSION", "VIDEO_FEATURES", "VideoDataset", "without_empty"]

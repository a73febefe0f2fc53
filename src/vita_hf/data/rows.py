"""What a drawn clip needs of a row: single frames and single masks, with errors that lead to the broken file."""

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pycocotools import mask as mask_api

from ..metrics.vis_ap.rle import RunLengthError, decode

# what Pillow's decoders raise on damaged files
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class BrokenSampleError(ValueError):
    """
    A frame or a mask that cannot be used. Training stops here or, with `--skip-broken`, goes without the video.

    Attributes:
        kind: "frame-missing", "frame-unreadable", "frame-size" or "rle-corrupt", as in [`problems.KINDS`].
        video_id: the row's.
        file: the frame's path, or its name where the row has the image's bytes; for masks the annotation's id.
        reason: what was found and what was expected.
    """

    def __init__(self, kind: str, video_id: int, file: str, reason: str):
        self.kind, self.video_id, self.file, self.reason = kind, video_id, file, reason
        super().__init__(f"video {video_id}, {file}: {reason}")

    def __reduce__(self):  # workers send their errors
        return type(self), (self.kind, self.video_id, self.file, self.reason)


def decode_frame(frame: Mapping[str, Any], row: Mapping[str, Any]) -> Image.Image:
    """
    Decode one frame of a row; opens its file and no other.

    Args:
        frame: `{"path", "bytes"}`, one of the row's `frames`.
        row: of which `video_id`, `height` and `width` are needed.

    Returns:
        RGB, turned upright if the file says how (EXIF), as the reference does, and of the row's size.

    Raises:
        BrokenSampleError: the file is missing, cannot be decoded to its end, or is of another size.
    """
    content, path = frame["bytes"], frame["path"]
    name = path if content is None else f"{path or 'frame'} (embedded)"

    def broken(kind: str, reason: str) -> BrokenSampleError:
        return BrokenSampleError(kind, row["video_id"], str(name), reason)

    try:
        with Image.open(path if content is None else io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        raise broken("frame-missing", "no such file") from None
    except _DAMAGED as error:
        raise broken("frame-unreadable", f"can't be decoded as an image: {error}") from error
    size = (row["height"], row["width"])
    if (image.height, image.width) != size:
        reason = f"is {image.height}×{image.width}, expected its video's height×width, {size[0]}×{size[1]}"
        raise broken("frame-size", reason)
    return image


def segmentation_mask(
    segmentation: Mapping[str, Any] | None, row: Mapping[str, Any], annotation_id: int | None = None
) -> np.ndarray:
    """
    Rasterise one frame's segmentation.

    Args:
        segmentation: an entry of an instance's `segmentations`; `None`: an empty mask. The parts of polygons are or-ed.
        row: of which `video_id`, `height` and `width` are needed.
        annotation_id: for the error message.

    Returns:
        (height, width), bool.

    Raises:
        BrokenSampleError: the run lengths are corrupt.
    """
    height, width = row["height"], row["width"]
    if segmentation is None:
        return np.zeros((height, width), bool)
    if segmentation["rle"] is None:
        parts = mask_api.frPyObjects(segmentation["polygons"], height, width)
        return np.asarray(mask_api.decode(parts)).any(axis=2)
    try:
        # pycocotools' own decoder checks nothing; this one does, and has the runs at hand afterwards
        pairs, _, _ = decode([segmentation["rle"]], height * width)
    except RunLengthError as error:
        where = "a mask" if annotation_id is None else f"annotation {annotation_id}"
        raise BrokenSampleError("rle-corrupt", row["video_id"], where, error.problems[0]) from None
    is_object = np.tile([False, True], len(pairs))
    return np.repeat(is_object, pairs.reshape(-1)).reshape(width, height).T


def has_objects(row: Mapping[str, Any]) -> bool:
    """Whether a row has an object to learn from: one that is no crowd and is there in some frame."""
    return any(not i["iscrowd"] and any(s is not None for s in i["segmentations"]) for i in row["instances"])


__all__ = ["BrokenSampleError", "decode_frame", "has_objects", "segmentation_mask"]

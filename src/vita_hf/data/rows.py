"""What a drawn clip needs of a row: single frames, with errors that lead to the broken file."""

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps


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
    except MemoryError:
        raise
    except Exception as error:  # on damaged files Pillow raises almost anything, TypeError and struct.error included
        raise broken("frame-unreadable", f"can't be decoded as an image: {error}") from error
    size = (row["height"], row["width"])
    if (image.height, image.width) != size:
        reason = f"is {image.height}×{image.width}, expected its video's height×width, {size[0]}×{size[1]}"
        raise broken("frame-size", reason)
    return image


def has_objects(row: Mapping[str, Any]) -> bool:
    """Whether a row has an object to learn from: one that is no crowd and is there in some frame."""
    return any(not i["iscrowd"] and any(s is not None for s in i["segmentations"]) for i in row["instances"])


__all__ = ["BrokenSampleError", "decode_frame", "has_objects"]

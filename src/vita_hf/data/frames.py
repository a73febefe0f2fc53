"""Find the frames of a dataset, and decode single ones, with errors that name the broken file."""

import io
import os
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps

from ..files import path_below
from ..video.images import check_bit_depth, refuse_animation
from .annotations import AnnotationFile, Problem, Video


class BrokenSampleError(ValueError):
    """
    A frame or a mask that cannot be used. It stops training or, with `--skip-broken`, costs the video.

    Attributes:
        kind: "frame-missing", "frame-unreadable", "frame-size" or "rle-corrupt", as in [`annotations.KINDS`].
        video_id: The row's `video_id`.
        file: The path of the frame, or its name if the row embeds the image; for masks the annotation's id.
        reason: What was found and what was expected.
    """

    def __init__(self, kind: str, video_id: int, file: str, reason: str):
        self.kind, self.video_id, self.file, self.reason = kind, video_id, file, reason
        super().__init__(f"video {video_id}, {file}: {reason}")

    def __reduce__(self):  # errors of worker processes are pickled
        return type(self), (self.kind, self.video_id, self.file, self.reason)


def find_frames(
    video: Video, file: AnnotationFile, images: str, follow_links: bool = False
) -> tuple[list[str], list[Problem]]:
    """
    Join the folder of images and the names of a video's frames.

    Returns:
        The paths, whether or not there are such files, and a problem for every name that leads out of the folder.
    """
    paths, problems = [], []
    for frame, name in enumerate(video.file_names):
        try:
            paths.append(path_below(images, name, follow_links))
        except ValueError as error:
            place = (file.path, video.entry, video.id, None, frame, name)
            problems.append(Problem("frame-path", str(error), *place))
    return paths, problems


def decode_frame(frame: Mapping[str, Any], row: Mapping[str, Any]) -> Image.Image:
    """
    Decode one frame of a row; opens its file and no other.

    Args:
        frame: One of the row's `frames`: `{"path", "bytes"}`.
        row: A dataset row; only `video_id`, `height` and `width` are read.

    Returns:
        The RGB image in the row's size, turned upright by its EXIF orientation as in the reference.

    Raises:
        BrokenSampleError: if the file is missing, is not a complete image, or has another size.
    """
    content, path = frame["bytes"], frame["path"]
    name = path if content is None else f"{path or 'frame'} (embedded)"

    def broken(kind: str, reason: str) -> BrokenSampleError:
        return BrokenSampleError(kind, row["video_id"], str(name), reason)

    if content is None and os.path.exists(path) and not os.path.isfile(path):  # reading a pipe could wait forever
        raise broken("frame-unreadable", "is not a file")
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as opened:
            check_bit_depth(opened, "the frame")
            refuse_animation(opened, "the frame")
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        raise broken("frame-missing", "no such file") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow raise almost anything, even TypeError and struct.error
        raise broken("frame-unreadable", f"cannot be decoded as an image: {error}") from error
    size = (row["height"], row["width"])
    if (image.height, image.width) != size:
        reason = f"is {image.height}×{image.width}, expected its video's height×width, {size[0]}×{size[1]}"
        raise broken("frame-size", reason)
    return image

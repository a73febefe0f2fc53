"""Reading what a dataset row refers to."""

import io

from PIL import Image


class BrokenSampleError(ValueError):
    """A video whose frames or annotations can't be used; the message names the file and the video."""


def decode_frame(frame: dict, row: dict) -> Image.Image:
    """Decode one frame of a row to RGB."""
    name = f"video {row['video_id']}: {frame['path']}"
    try:
        with Image.open(frame["path"] if frame["bytes"] is None else io.BytesIO(frame["bytes"])) as image:
            image = image.convert("RGB")
    except OSError as error:
        raise BrokenSampleError(f"{name}: {error}") from error
    if image.size != (row["width"], row["height"]):
        raise BrokenSampleError(
            f"{name}: expected {row['height']}×{row['width']} pixels, got {image.height}×{image.width}"
        )
    return image

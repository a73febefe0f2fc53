"""Draw a training clip from a dataset row."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from ..frames import BrokenSampleError, decode_frame
from .augmentation import draw_transforms
from .masks import frame_masks
from .settings import ClipSettings
from .transforms import Transform


def sample_frames(video_length: int, num_frames: int, frame_range: int, rng: np.random.Generator) -> list[int]:
    """
    Draw the indices of a clip's frames, in ascending order.

    The reference frame is drawn from the whole video; the others are drawn with replacement from the frames at most
    `frame_range` away from it, without the reference itself. A video of one frame is repeated.

    Args:
        video_length: Number of frames in the video, at least 1.
        num_frames: Number of frames to draw.
        frame_range: Largest distance from the reference frame; at least 1 if `num_frames` is greater than 1.
        rng: Source of all random numbers.
    """
    if video_length == 1:
        return [0] * num_frames
    reference = int(rng.integers(video_length))
    first, last = max(0, reference - frame_range), min(video_length - 1, reference + frame_range)
    others = rng.integers(first, last, size=num_frames - 1) if num_frames > 1 else np.empty(0, dtype=int)
    others[others >= reference] += 1
    return sorted([reference, *others.tolist()])


def draw_clip(row: dict[str, Any], settings: ClipSettings, rng: np.random.Generator) -> dict[str, Any]:
    """
    Draw a clip from a video, or from an image (a row with one frame), which is repeated.

    Only the drawn frames and their masks are decoded.

    Args:
        row: A dataset row, see [`vita_hf.data.schema`].
        settings: Number of frames and augmentation.
        rng: Source of all random numbers.

    Returns:
        Dictionary with

        - **pixel_values**: uint8 (T, 3, h, w), RGB, augmented but not normalised.
        - **mask_labels**: bool (N, T, h, w), empty where an instance is not in a frame. Crowds and instances without a
          pixel in the clip are left out. N may be 0: like the reference, this draws no second time.
        - **class_labels**: int64 (N,).
        - **video_id**: int.
        - **frame_indices**: list of T positions in the video.

    Raises:
        BrokenSampleError: if a frame or a mask cannot be read; the message names the video and the file.

    Example:
    ```python
    >>> import io
    >>> import numpy as np
    >>> from PIL import Image
    >>> from vita_hf.data.clips.sampling import draw_clip
    >>> from vita_hf.data.clips.settings import ClipSettings

    >>> image = io.BytesIO()
    >>> Image.new("RGB", (64, 48)).save(image, "png")
    >>> frames = [{"path": None, "bytes": image.getvalue()}] * 10
    >>> row = {"video_id": 1, "height": 48, "width": 64, "frames": frames, "instances": []}
    >>> settings = ClipSettings(num_frames=3, frame_range=2, crop_probability=0, short_edges=[96])
    >>> clip = draw_clip(row, settings, np.random.default_rng(0))
    >>> clip["pixel_values"].shape, clip["frame_indices"]
    (torch.Size([3, 3, 96, 128]), [7, 7, 8])

    ```
    """
    if not row["frames"]:
        raise BrokenSampleError("malformed", row["video_id"], "frames", "expected at least one, got none")
    frames = sample_frames(len(row["frames"]), settings.num_frames, settings.frame_range, rng)
    size, is_image = (row["height"], row["width"]), len(row["frames"]) == 1
    transforms = draw_transforms(size, settings, rng, is_image=is_image)
    instances = [
        instance
        for instance in row["instances"]
        if not instance["iscrowd"] and any(instance["segmentations"][frame] for frame in set(frames))
    ]

    views = list(zip(frames, transforms))
    images: dict[tuple, Image.Image] = {}
    pixel_values = np.stack([np.asarray(_transformed_image(row, *view, images)) for view in views])
    masks = {view: frame_masks(row, instances, *view) for view in set(views)}
    mask_labels = np.stack([masks[view] for view in views], axis=1)
    is_visible = mask_labels.any(axis=(1, 2, 3))
    class_labels = np.array([instance["label"] for instance in instances], dtype=np.int64)
    return {
        "pixel_values": torch.from_numpy(pixel_values).permute(0, 3, 1, 2).contiguous(),
        "mask_labels": torch.from_numpy(mask_labels[is_visible]),
        "class_labels": torch.from_numpy(class_labels[is_visible]),
        "video_id": row["video_id"],
        "frame_indices": frames,
    }


def _transformed_image(
    row: dict[str, Any], frame: int, transforms: tuple[Transform, ...], cache: dict[tuple, Image.Image]
) -> Image.Image:
    """Decode and transform a frame. The cache holds every intermediate image, which repeated frames share."""
    view = (frame, transforms)
    if view not in cache:
        if transforms:
            cache[view] = transforms[-1].image(_transformed_image(row, frame, transforms[:-1], cache))
        else:
            cache[view] = decode_frame(row["frames"][frame], row)
    return cache[view]

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
    Draw a clip from a video, or repeat an image (a row with one frame). Decodes only what the clip needs.

    Args:
        row: A dataset row, see [`vita_hf.data.schema`].
        settings: Number of frames and augmentation.
        rng: Source of all random numbers.

    Returns:
        Dictionary with

        - **pixel_values**: uint8 (T, 3, h, w), RGB, augmented but not normalized.
        - **mask_labels**: bool (N, T, h, w), empty where an instance is not in a frame. Crowds and instances without a
          pixel in the clip are left out, so that N may be 0.
        - **class_labels**: int64 (N,).
        - **video_id**, **frame_indices**: the row's id, and the list of T positions in the video.

    Raises:
        BrokenSampleError: if a frame or a mask cannot be read; the message names the video and the file.

    Example:
    ```python
    >>> import tempfile
    >>> import numpy as np
    >>> from vita_hf.data import datasets, synthetic
    >>> from vita_hf.data.clips.sampling import ClipSettings, draw_clip

    >>> file = synthetic.write_synthetic_dataset(tempfile.mkdtemp(), seed=0, videos=1)
    >>> rows = datasets.read_ytvis(file, file.parent / "JPEGImages", cache_dir=file.parent).rows
    >>> clip = draw_clip(rows[0], ClipSettings(num_frames=3), np.random.default_rng(0))
    >>> clip["pixel_values"].shape, clip["mask_labels"].shape, clip["frame_indices"]
    (torch.Size([3, 3, 352, 353]), torch.Size([4, 3, 352, 353]), [7, 9, 13])

    ```
    """
    if not row["frames"]:
        raise BrokenSampleError("malformed", row["video_id"], "frames", "expected at least one, got none")
    if any(len(instance["segmentations"]) != len(row["frames"]) for instance in row["instances"]):
        reason = f"expected one of each instance for each of the {len(row['frames'])} frames"
        raise BrokenSampleError("length", row["video_id"], "segmentations", reason)
    frames = sample_frames(len(row["frames"]), settings.num_frames, settings.frame_range, rng)
    transforms = draw_transforms((row["height"], row["width"]), settings, rng, is_image=len(row["frames"]) == 1)
    instances = [
        instance
        for instance in row["instances"]
        if not instance["iscrowd"] and any(instance["segmentations"][frame] for frame in frames)
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


def _transformed_image(row: dict[str, Any], frame: int, transforms: tuple[Transform, ...], cache: dict) -> Image.Image:
    """Decode and transform a frame. The cache holds every intermediate image, which repeated frames share."""
    view = (frame, transforms)
    if view not in cache:
        if transforms:
            cache[view] = transforms[-1].image(_transformed_image(row, frame, transforms[:-1], cache))
        else:
            cache[view] = decode_frame(row["frames"][frame], row)
    return cache[view]

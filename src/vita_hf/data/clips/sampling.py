"""From a dataset row to a training clip."""

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
    Draw a clip's frames, in ascending order.

    A reference frame is drawn from the whole video; the others, with replacement, from those at most `frame_range`
    frames away from it, never the reference itself. A video of one frame is repeated.

    Args:
        video_length: number of frames to draw from, at least 1.
        num_frames: number of frames to draw.
        frame_range: at least 1 if `num_frames` is more than 1.
    """
    if video_length == 1:
        return [0] * num_frames
    reference = int(rng.integers(video_length))
    first, last = max(0, reference - frame_range), min(video_length - 1, reference + frame_range)
    others = rng.integers(first, last, size=num_frames - 1) if num_frames > 1 else np.empty(0, dtype=int)
    others[others >= reference] += 1
    return sorted([reference, *others.tolist()])


def draw_clip(row: dict, settings: ClipSettings, rng: np.random.Generator) -> dict:
    """
    Draw a clip from a video, or from an image (a row with one frame), which is repeated.

    Only the drawn frames are decoded, and only their masks. Every random choice comes from `rng`.

    Args:
        row: a dataset row, see [`vita_hf.data.schema`].
        settings: number of frames and augmentation.
        rng: for example `numpy.random.default_rng(seed)`.

    Returns:
        Dictionary with

        - **pixel_values** uint8 (T, 3, h, w): RGB, augmented, not normalised.
        - **mask_labels** bool (N, T, h, w): an instance that isn't in a frame has an empty mask there. Crowds, and
          instances that are in no frame of the clip, are left out. N may be 0, as in the reference: it doesn't redraw.
        - **class_labels** int64 (N,).
        - **video_id** int.
        - **frame_indices**: the drawn frames' T positions in the video.

    Raises:
        BrokenSampleError: a frame or a mask that can't be read; the message names the video and the file.
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

    keys = list(zip(frames, transforms))
    images: dict[tuple, Image.Image] = {}
    pixel_values = np.stack([np.asarray(_frame_image(row, *key, images)) for key in keys])
    masks = {key: frame_masks(row, instances, *key) for key in set(keys)}
    mask_labels = np.stack([masks[key] for key in keys], axis=1)
    is_visible = mask_labels.any(axis=(1, 2, 3))
    class_labels = np.array([instance["label"] for instance in instances], dtype=np.int64)
    return {
        "pixel_values": torch.from_numpy(pixel_values).permute(0, 3, 1, 2).contiguous(),
        "mask_labels": torch.from_numpy(mask_labels[is_visible]),
        "class_labels": torch.from_numpy(class_labels[is_visible]),
        "video_id": row["video_id"],
        "frame_indices": frames,
    }


def _frame_image(row: dict, frame: int, transforms: tuple[Transform, ...], done: dict[tuple, Image.Image]):
    """Decode and transform a frame. `done` keeps all steps: copies of a frame have some or all in common."""
    key = (frame, transforms)
    if key not in done:
        if transforms:
            done[key] = transforms[-1].image(_frame_image(row, frame, transforms[:-1], done))
        else:
            done[key] = decode_frame(row["frames"][frame], row)
    return done[key]


__all__ = ["draw_clip", "sample_frames"]

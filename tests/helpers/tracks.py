"""Tracks with masks of simple shapes."""

import numpy as np
import torch

from vita_hf.ops.rle import encode_masks
from vita_hf.tracks.instances import VideoInstances


def instances(masks, **fields):
    """Instances with these masks (k, T, h, w), as RLE; earlier ones score higher."""
    masks = torch.as_tensor(masks)
    count = len(masks)
    return VideoInstances(
        **{
            "scores": torch.linspace(0.9, 0.5, count),
            "labels": torch.arange(count) % 3,
            "masks": [encode_masks(track) for track in masks],
            "query_indices": torch.arange(count),
            "size": tuple(masks.shape[2:]),
            "num_frames": masks.shape[1],
            "id2label": {0: "person", 1: "dog", 2: "cat"},
            **fields,
        }
    )


def crossing(height=97, width=129, num_frames=6):
    """A gray video and two discs that cross each other, the first in front: frames (T, h, w, 3), masks (2, T, h, w)."""
    y, x = np.mgrid[:height, :width]
    masks = np.zeros((2, num_frames, height, width), dtype=bool)
    for frame in range(num_frames):
        shift = width * (0.2 + 0.6 * frame / max(1, num_frames - 1))
        for track, center in enumerate((shift, width - shift)):
            masks[track, frame] = (x - center) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    masks[1] &= ~masks[0]
    frames = np.repeat(np.linspace(60, 180, num_frames).astype(np.uint8), height * width * 3)
    return frames.reshape(num_frames, height, width, 3), masks

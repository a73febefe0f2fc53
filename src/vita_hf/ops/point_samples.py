"""Values of maps at points: bilinear, zero beyond the edges, pixel centres at half-integers."""

import torch
import torch.nn.functional as F
from torch import Tensor


def chunk_elements(device: torch.device) -> int:
    """How many numbers an intermediate result may have, where many small ones could be one. Does not change results.

    Small ones stay in a processor's cache; a GPU waits for each to be started.
    """
    return 2**20 if device.type == "cpu" else 2**25


def point_logits(maps: Tensor, points: Tensor) -> Tensor:
    """`(R, 1, H, W)` maps, each at its own `(R, P, 2)` points in [0, 1], x first: `(R, P)`."""
    if maps.shape[0] == 0:
        return maps.sum() + points.new_zeros(points.shape[:2])
    grid = (points.to(maps.dtype) * 2).sub_(1)  # from [0, 1] to [-1, 1]
    return F.grid_sample(maps, grid[:, :, None], align_corners=False)[:, 0, :, 0]


def mask_point_values(masks: Tensor, points: Tensor) -> Tensor:
    """The same of `(R, H, W)` bool masks, in float32, converting not too many at a time."""
    size = max(1, chunk_elements(masks.device) // masks[0].numel()) if len(masks) else 1
    values = [point_logits(m[:, None].float(), p) for m, p in zip(masks.split(size), points.split(size))]
    return torch.cat(values)

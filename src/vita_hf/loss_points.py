"""Sample masks at points, bilinearly and with zeros beyond the edges."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def chunk_elements(device: torch.device) -> int:
    """Number of elements that an intermediate tensor may have; the results do not depend on it.

    Small chunks stay in a CPU's cache, while a GPU loses time with every kernel launch.
    """
    return 2**20 if device.type == "cpu" else 2**25


def values_at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Sample each map at its own points.

    Args:
        maps: `(R, C, H, W)`.
        points: `(R, P, 2)` in [0, 1], x first.

    Returns:
        `(R, C, P)` in the maps' dtype.
    """
    grid = (points.to(maps.dtype) * 2).sub_(1)  # from [0, 1] to [-1, 1]
    return F.grid_sample(maps, grid[:, None], align_corners=False)[:, :, 0]


def mask_values_at_points(masks: Tensor, points: Tensor) -> Tensor:
    """Sample `(R, H, W)` bool masks at `(R, P, 2)` points into `(R, P)` float32, converting only a chunk at a time."""
    size = max(1, chunk_elements(masks.device) // math.prod(masks.shape[1:]))
    return torch.cat(
        [
            values_at_points(mask_chunk[:, None].float(), point_chunk)[:, 0]
            for mask_chunk, point_chunk in zip(masks.split(size), points.split(size))
        ]
    )

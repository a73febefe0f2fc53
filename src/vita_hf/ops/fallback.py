"""Deformable attention in PyTorch's own operations: every device, every dtype, higher derivatives, ONNX."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_and_sum(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """One weighted gather of all corners of all points: `embedding_bag` sums a head's 4·levels·points rows of `value`.

    Nothing of size Q·points·dim is ever written, which is what `grid_sample` per level spends its time on. Arguments
    as in [`multi_scale_deformable_attention`], already checked, locations and weights in float32 or float64.
    """
    batch, length, heads, dim = value.shape
    queries = locations.shape[1]
    dtype = locations.dtype
    device = value.device

    # Levels' sizes and first rows, broadcastable over (N, Q, heads, levels, points).
    widths = torch.tensor([w for _, w in spatial_shapes], dtype=dtype, device=device)[:, None]
    heights = torch.tensor([h for h, _ in spatial_shapes], dtype=dtype, device=device)[:, None]
    starts = [0]
    for h, w in spatial_shapes[:-1]:
        starts.append(starts[-1] + h * w)
    first_rows = torch.tensor(starts, dtype=torch.int32, device=device)[:, None]

    x = locations[..., 0] * widths - 0.5
    y = locations[..., 1] * heights - 0.5
    # Farther out than one pixel everything is zero; the bounds also catch infinities, and nan compares false.
    inside = (x > -1) & (x < widths) & (y > -1) & (y < heights)
    x = torch.where(inside, x, -1.0)
    y = torch.where(inside, y, -1.0)
    left, top = x.detach().floor(), y.detach().floor()
    right_share, bottom_share = x - left, y - top

    weights = attention_weights
    top_weights = weights * (1 - bottom_share)
    bottom_weights = weights * bottom_share
    rows, shares = [], []
    for dy, row_weights in ((0, top_weights), (1, bottom_weights)):
        corner_y = top + dy
        y_valid = (corner_y >= 0) & (corner_y < heights)
        row = corner_y.clamp_min(0).minimum(heights - 1) * widths
        for dx, column_share in ((0, 1 - right_share), (1, right_share)):
            corner_x = left + dx
            valid = y_valid & (corner_x >= 0) & (corner_x < widths)
            column = corner_x.clamp_min(0).minimum(widths - 1)
            rows.append((row + column).to(torch.int32) + first_rows)
            shares.append(torch.where(valid, row_weights * column_share, 0.0))

    # Row of (n, s, head) in value.view(-1, dim) is (n·S + s)·heads + head.
    head = torch.arange(heads, dtype=torch.int32, device=device)[:, None, None, None]
    image = torch.arange(batch, dtype=torch.int32, device=device)[:, None, None, None, None, None] * length
    rows = (torch.stack(rows, -1) + image) * heads + head
    summed = F.embedding_bag(
        rows.flatten(3).flatten(0, 2),
        value.to(dtype).reshape(-1, dim),
        mode="sum",
        per_sample_weights=torch.stack(shares, -1).flatten(3).flatten(0, 2),
    )
    return summed.view(batch, queries, heads * dim).to(value.dtype)

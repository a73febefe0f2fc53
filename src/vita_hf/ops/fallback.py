"""Deformable attention in PyTorch's own operations, for every device and dtype, higher derivatives and ONNX."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_and_sum(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """
    Sum all corners of all samples in one weighted gather: `embedding_bag` adds 4·levels·points rows of `value` a head.

    Nothing of size Q·points·dim is ever written; writing that is what takes `grid_sample` so long. The arguments are
    those of [`multi_scale_deformable_attention`], already checked, with locations and weights in float32 or float64.
    """
    batch, length, heads, dim = value.shape
    queries = locations.shape[1]
    dtype = locations.dtype
    device = value.device

    # The levels' sizes and first rows, to be broadcast over (N, Q, heads, levels, points).
    widths = torch.tensor([w for _, w in spatial_shapes], dtype=dtype, device=device)[:, None]
    heights = torch.tensor([h for h, _ in spatial_shapes], dtype=dtype, device=device)[:, None]
    starts = [0]
    for h, w in spatial_shapes[:-1]:
        starts.append(starts[-1] + h * w)
    first_rows = torch.tensor(starts, dtype=torch.int32, device=device)[:, None]

    x = locations[..., 0] * widths - 0.5
    y = locations[..., 1] * heights - 0.5
    # Samples a pixel or farther outside are zero; so are infinite ones, and nan, for which comparisons are false.
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

    # The row of (n, s, head) in value.view(-1, dim) is (n·S + s)·heads + head.
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

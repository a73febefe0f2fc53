"""Multi-scale deformable attention (Zhu et al., Deformable DETR, arXiv 2010.04159, eq. 3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def available_backends() -> list[str]:
    """Names that `multi_scale_deformable_attention(backend=…)` takes here, fastest first."""
    return ["pytorch"]


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    backend: str | None = None,
) -> Tensor:
    """Sample each head's value maps bilinearly at its locations and sum the samples by their weights.

    Pixel centres are at half-integers (`align_corners=False`), everything outside a map is zero.

    Args:
        value: `(N, S, heads, dim)`, the levels' maps flattened and concatenated, `S` = Σ h·w.
        spatial_shapes: `(h, w)` of each level.
        sampling_locations: `(N, Q, heads, levels, points, 2)`, x first, in `[0, 1]` over each level's map. Locations
            outside, not-a-number and infinite ones contribute zero.
        attention_weights: `(N, Q, heads, levels, points)`, any finite values.
        backend: one of `available_backends()`; by default the first.

    Returns:
        `(N, Q, heads·dim)` in `value`'s dtype. Coordinates and sums are kept in float32 for half-precision values.

    Raises:
        ValueError: shapes that contradict each other, or an unknown backend.
    """
    if backend is not None and backend not in available_backends():
        raise ValueError(f"backend: expected one of {available_backends()}, got {backend!r}")
    batch, length, heads, _ = value.shape
    levels, points = sampling_locations.shape[-3:-1]
    if len(spatial_shapes) != levels or sum(h * w for h, w in spatial_shapes) != length:
        raise ValueError(
            f"spatial_shapes {list(spatial_shapes)} do not match value {tuple(value.shape)} (N, S, heads, dim) and "
            f"sampling_locations {tuple(sampling_locations.shape)} (N, Q, heads, levels, points, 2)"
        )
    queries = sampling_locations.shape[1]
    expected = (batch, queries, heads, levels, points)
    if tuple(sampling_locations.shape) != (*expected, 2) or tuple(attention_weights.shape) != expected:
        raise ValueError(
            f"expected sampling_locations {(*expected, 2)} and attention_weights {expected}, got "
            f"{tuple(sampling_locations.shape)} and {tuple(attention_weights.shape)}"
        )
    return _pytorch(value, spatial_shapes, sampling_locations, attention_weights)


def _pytorch(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """One weighted gather of all corners of all points: `embedding_bag` sums a head's 4·levels·points rows of `value`.

    Nothing of size Q·points·dim is ever written, which is what `grid_sample` per level spends its time on.
    """
    batch, length, heads, dim = value.shape
    queries, levels, points = locations.shape[1], *locations.shape[3:5]
    dtype = torch.promote_types(value.dtype, torch.float32)
    device = value.device

    # Levels' sizes and first rows, broadcastable over (N, Q, heads, levels, points).
    widths = torch.tensor([w for _, w in spatial_shapes], dtype=dtype, device=device)[:, None]
    heights = torch.tensor([h for h, _ in spatial_shapes], dtype=dtype, device=device)[:, None]
    starts = [0]
    for h, w in spatial_shapes[:-1]:
        starts.append(starts[-1] + h * w)
    first_rows = torch.tensor(starts, dtype=torch.int32, device=device)[:, None]

    locations = locations.to(dtype)
    x = locations[..., 0] * widths - 0.5
    y = locations[..., 1] * heights - 0.5
    # Farther out than one pixel everything is zero; the bounds also catch infinities, and nan compares false.
    inside = (x > -1) & (x < widths) & (y > -1) & (y < heights)
    x = torch.where(inside, x, -1.0)
    y = torch.where(inside, y, -1.0)
    left, top = x.detach().floor(), y.detach().floor()
    right_share, bottom_share = x - left, y - top

    weights = attention_weights.to(dtype)
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
    bags, samples = batch * queries * heads, 4 * levels * points
    summed = F.embedding_bag(
        rows.reshape(bags, samples),
        value.to(dtype).reshape(-1, dim),
        mode="sum",
        per_sample_weights=torch.stack(shares, -1).reshape(bags, samples),
    )
    return summed.view(batch, queries, heads * dim).to(value.dtype)

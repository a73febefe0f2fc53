import torch
from torch import Tensor, nn

from ._ops import ops


class MultiScaleDeformableAttention(nn.Module):
    """Drop-in replacement of the layer in transformers' Deformable DETR, Grounding DINO, RT-DETR and others."""

    has_backward = True
    can_torch_compile = True

    def forward(
        self,
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_spatial_shapes_list: list[tuple[int, int]],
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """
        Sample the value maps at the locations and sum the samples by their weights.

        Args:
            value: `(N, S, heads, dim)`; floating point. On CUDA `dim` is a multiple of 8 up to 256.
            value_spatial_shapes: Unused.
            value_spatial_shapes_list: `(h, w)` of each level.
            level_start_index: Unused.
            sampling_locations: `(N, Q, heads, levels, points, 2)`, x first, in `[0, 1]`.
            attention_weights: `(N, Q, heads, levels, points)`.
            im2col_step: Unused.

        Returns:
            `(N, Q, heads·dim)`.
        """
        dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
        sizes = [int(size) for shape in value_spatial_shapes_list for size in shape]
        return ops.deformable_attention(value, sizes, sampling_locations.to(dtype), attention_weights.to(dtype))

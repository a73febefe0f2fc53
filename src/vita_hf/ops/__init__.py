"""Operations with compiled kernels and fallbacks: deformable attention and RLE."""

from .deformable_attention import deformable_attention_from_projections, multi_scale_deformable_attention
from .loader import available_backends

__all__ = ["available_backends", "deformable_attention_from_projections", "multi_scale_deformable_attention"]

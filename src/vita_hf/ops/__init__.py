"""Operations with more than one implementation."""

from .deformable_attention import available_backends, multi_scale_deformable_attention

__all__ = ["available_backends", "multi_scale_deformable_attention"]

"""Multi-scale deformable attention for CPU and CUDA, see `layers.MultiScaleDeformableAttention`."""

from . import layers
from ._ops import add_op_namespace_prefix, ops
from .registration import register

register(add_op_namespace_prefix("").removesuffix("::"))

__all__ = ["layers", "ops"]

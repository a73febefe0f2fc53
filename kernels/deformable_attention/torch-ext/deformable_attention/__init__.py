"""Multi-scale deformable attention for CPU and CUDA: see `layers.MultiScaleDeformableAttention`."""

from . import layers
from ._ops import ops

__all__ = ["layers", "ops"]

"""Checkpoints of the original implementation → models of this package."""

from .checkpoint import convert_checkpoint, load_original_checkpoint
from .weights import convert_state_dict

__all__ = ["convert_checkpoint", "convert_state_dict", "load_original_checkpoint"]

"""Official checkpoints to models of this package."""

from .checkpoint import convert_checkpoint, convert_state_dict, load_original_checkpoint

__all__ = ["convert_checkpoint", "convert_state_dict", "load_original_checkpoint"]

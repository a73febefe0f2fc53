"""Numeric precision, and what a device can't do."""

import os

import torch

from ..modeling_vita import VitaForVideoInstanceSegmentation


def choose_precision(wanted: str, cpu: bool) -> str | None:
    """
    What to tell `Accelerator`.

    Args:
        wanted: "no", "bf16", "fp16" or "auto": what `accelerate launch` was told, else bf16 on a GPU that has it, else
            none.
        cpu: whether the training stays on the CPU.
    """
    if wanted != "auto":
        return wanted
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        return None  # Accelerate reads it
    return "bf16" if not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def refuse_fsdp_on_cpu(cpu: bool) -> None:
    """
    Raise where Accelerate would silently train without sharding.

    Raises:
        ValueError: an FSDP config, and no accelerator to shard over.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and (cpu or not torch.cuda.is_available()):
        raise ValueError(
            "the Accelerate config asks for FSDP, which Accelerate ignores on the CPU: expected a GPU, or a config "
            "without FSDP (distributed_type MULTI_CPU or NO)"
        )


def keep_pixel_decoder_in_float32(model: VitaForVideoInstanceSegmentation) -> None:
    """Take the pixel decoder out of autocast, as the reference does under fp16."""
    decoder = model.model.pixel_level_module.decoder
    forward = decoder.forward

    def in_float32(features):
        with torch.autocast(device_type=features[0].device.type, enabled=False):
            return forward(tuple(feature.float() for feature in features))

    decoder.forward = in_float32


__all__ = ["choose_precision", "keep_pixel_decoder_in_float32", "refuse_fsdp_on_cpu"]

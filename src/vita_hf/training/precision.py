"""Numeric precision, and what a device can't do."""

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

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
    # `accelerate launch` sets the variable in any case, to "no" where nobody said anything.
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        return None  # Accelerate reads it
    has_bf16 = not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "no"


def check_sharding(accelerator: Accelerator, evaluates: bool) -> None:
    """
    Refuse what FSDP can't do, before any work.

    Args:
        accelerator: as it was set up.
        evaluates: whether scores are asked for during the training.

    Raises:
        ValueError: an FSDP config that Accelerate ignores (on the CPU); FSDP of version 1, with fp16, with loading in
            one process, which fails on the buffers of batch norms, or with evaluation, which runs parts of the model on
            their own.
    """
    sharded = accelerator.distributed_type == DistributedType.FSDP
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and not sharded:
        raise ValueError(
            "the Accelerate config asks for FSDP, which Accelerate ignores on the CPU and where nothing was launched: "
            "expected GPUs and `accelerate launch`, or a config without FSDP"
        )
    if sharded and not accelerator.is_fsdp2:
        raise ValueError("fsdp_config.fsdp_version: expected 2, got 1")
    if sharded and accelerator.state.fsdp_plugin.cpu_ram_efficient_loading:
        raise ValueError("fsdp_config.fsdp_cpu_ram_efficient_loading: expected false (batch norms' buffers), got true")
    if sharded and accelerator.mixed_precision == "fp16":
        raise ValueError("training.mixed_precision: expected bf16 or no with FSDP, got fp16")
    if sharded and evaluates:
        raise ValueError("--eval-json can't be scored while parameters are sharded (FSDP): evaluate the saved model")


def keep_pixel_decoder_in_float32(model: VitaForVideoInstanceSegmentation) -> None:
    """Take the pixel decoder out of autocast, as the reference does under fp16."""
    decoder = model.model.pixel_level_module.decoder
    forward = decoder.forward

    def in_float32(features):
        with torch.autocast(device_type=features[0].device.type, enabled=False):
            return forward(tuple(feature.float() for feature in features))

    decoder.forward = in_float32


__all__ = ["check_sharding", "choose_precision", "keep_pixel_decoder_in_float32"]

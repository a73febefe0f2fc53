"""Numeric precision and sharding: settings for Accelerate, and checks for what it does not support."""

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, parse_flag_from_env


def choose_precision(mixed_precision: str, cpu: bool) -> str | None:
    """
    Choose the `mixed_precision` of the `Accelerator`.

    Args:
        mixed_precision: "no", "bf16", "fp16", or "auto": what `accelerate launch` was told; otherwise bf16 on a GPU
            that supports it, "no" elsewhere.
        cpu: Whether the training stays on the CPU.

    Returns:
        The precision, or None where Accelerate is to read what `accelerate launch` was told.
    """
    if mixed_precision != "auto":
        return mixed_precision
    # `accelerate launch` sets the variable even if nobody chose a precision, to "no".
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        return None
    cpu = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    has_bf16 = not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "no"


def check_sharding(accelerator: Accelerator, evaluates: bool) -> None:
    """
    Refuse what does not work with sharded parameters (FSDP), before any work.

    Args:
        accelerator: The accelerator of the training.
        evaluates: Whether the model is scored during the training.

    Raises:
        ValueError: if Accelerate ignores its FSDP config (on the CPU); or if FSDP is to run with version 1, with fp16,
            with loading in one process (which fails on the buffers of batch norms), or with evaluation (which runs
            parts of the model on their own).
    """
    sharded = accelerator.distributed_type == DistributedType.FSDP
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and not sharded:
        raise ValueError(
            "the Accelerate config asks for FSDP, which Accelerate ignores on the CPU and without `accelerate launch`: "
            "expected GPUs and `accelerate launch`, or a config without FSDP"
        )
    if not sharded:
        return
    if not accelerator.is_fsdp2:
        raise ValueError("fsdp_config.fsdp_version: expected 2, got 1")
    plugin = accelerator.state.fsdp_plugin
    if plugin is not None and plugin.cpu_ram_efficient_loading:
        raise ValueError("fsdp_config.fsdp_cpu_ram_efficient_loading: expected false (batch norms' buffers), got true")
    if accelerator.mixed_precision == "fp16":
        raise ValueError("training.mixed_precision: expected bf16 or no with FSDP, got fp16")
    if evaluates:
        raise ValueError("--eval-json: cannot score the model while its parameters are sharded; score the saved model")

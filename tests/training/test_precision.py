"""Numeric precision, and what FSDP cannot do."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from vita_hf.training.precision import check_sharding, choose_precision


def test_precision(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert choose_precision("fp16", cpu=True) == "fp16"
    assert choose_precision("auto", cpu=True) == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what `accelerate launch` sets by itself
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert choose_precision("auto", cpu=False) == "bf16"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # `accelerate launch --cpu`
    assert choose_precision("auto", cpu=False) == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert choose_precision("auto", cpu=False) is None


def test_sharding(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)

    def sharded(mixed_precision="bf16", version=2, efficient=False):
        plugin = SimpleNamespace(cpu_ram_efficient_loading=efficient)
        return SimpleNamespace(
            distributed_type=DistributedType.FSDP,
            mixed_precision=mixed_precision,
            is_fsdp2=version == 2,
            state=SimpleNamespace(fsdp_plugin=plugin),
        )

    check_sharding(sharded(), evaluates=False)
    with pytest.raises(ValueError, match="while its parameters are sharded"):
        check_sharding(sharded(), evaluates=True)
    with pytest.raises(ValueError, match="expected bf16 or no with FSDP, got fp16"):
        check_sharding(sharded("fp16"), evaluates=False)
    with pytest.raises(ValueError, match="fsdp_version: expected 2, got 1"):
        check_sharding(sharded(version=1), evaluates=False)
    with pytest.raises(ValueError, match="fsdp_cpu_ram_efficient_loading: expected false"):
        check_sharding(sharded(efficient=True), evaluates=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="which Accelerate ignores on the CPU"):
        check_sharding(SimpleNamespace(distributed_type=DistributedType.NO, mixed_precision="no"), evaluates=False)

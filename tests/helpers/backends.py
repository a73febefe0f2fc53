"""Which tests can't run here: those of kernels and devices that this machine can't have."""

import pytest
import torch

from vita_hf.ops import available_backends, loader

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch's operations on a GPU need one")
CANNOT = ("no C++ compiler", "no CUDA device", "no nvcc", "is built without CUDA", "not made for ROCm")


def require(backend: str) -> str:
    """Skip where nothing can compile or run the backend. A compiler that is there and fails is a failure."""
    if backend in available_backends():
        return backend
    if backend not in loader.allowed_backends():
        pytest.skip(f"{backend}: VITA_HF_KERNELS does not permit it")
    reason = loader.load_error(backend)
    if any(text in reason for text in CANNOT):
        pytest.skip(f"{backend}: {reason}")
    pytest.fail(f"{backend}: {reason}")

"""Skips for tests of kernels and devices that this machine does not have."""

import pytest
import torch

from vita_hf.ops import available_backends, loader

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
EXPECTED_REASONS = ("no C++ compiler", "no CUDA device", "no nvcc", "is built without CUDA", "does not support ROCm")


def require(backend: str) -> str:
    """Skip the test if nothing can compile or run the backend; fail it if the compiler fails."""
    if backend in available_backends():
        return backend
    if backend not in loader.allowed_backends():
        pytest.skip(f"{backend}: VITA_HF_KERNELS does not permit it")
    reason = loader.load_error(backend)
    if any(text in reason for text in EXPECTED_REASONS):
        pytest.skip(f"{backend}: {reason}")
    pytest.fail(f"{backend}: {reason}")

"""Which implementations of the operations can run here."""

import ctypes
import functools
import importlib.util
import os
import warnings

import torch

from .build import NAMESPACES, BuildError, build, source_dir

_CHOICES = ("auto", "off", "cuda", "cpp", "pytorch")


def allowed_backends() -> tuple[str, ...]:
    """What the environment variable `VITA_HF_KERNELS` permits, fastest first, whether or not it can be built.

    `auto` (the default) permits everything; `cuda` and `cpp` permit one kernel and, where that can't run, PyTorch;
    `off` and `pytorch` compile and load nothing.
    """
    choice = os.environ.get("VITA_HF_KERNELS", "auto").lower()
    if choice not in _CHOICES:
        raise ValueError(f"VITA_HF_KERNELS: expected one of {', '.join(_CHOICES)}, got {choice!r}")
    return (*(name for name in ("cuda", "cpp") if choice in ("auto", name)), "pytorch")


def available_backends() -> list[str]:
    """Names that `backend=…` takes here, fastest first. Compiles what is permitted and not there yet."""
    return [name for name in allowed_backends() if is_available(name)]


@torch.compiler.assume_constant_result
def is_available(backend: str) -> bool:
    """Whether the backend is permitted and loads; an ONNX graph has no place for the kernels.

    The first failure to load warns; `load_error` keeps the reason.
    """
    if backend == "pytorch":
        return True
    return backend in allowed_backends() and not torch.onnx.is_in_onnx_export() and load_error(backend) is None


@functools.cache
def load_error(backend: str) -> str | None:
    """Load `"cpp"` or `"cuda"`, compiled first where the cache lacks it; the reason where that fails."""
    if backend == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    if backend == "cuda" and torch.version.hip is not None:
        return "the CUDA kernel is not made for ROCm"
    try:
        load(backend)
    except (BuildError, OSError) as error:
        warnings.warn(
            f"the {backend} kernels are not available, slower implementations take over: {error}",
            stacklevel=2,
        )
        return str(error)
    return None


def load(backend: str) -> None:
    """Build where needed, load and register the operators `torch.ops.vita_hf_<backend>`."""
    library = build(backend)
    ctypes.CDLL(str(library))  # its errors name what is missing
    torch.ops.load_library(library)
    path = source_dir() / "torch-ext" / "deformable_attention" / "registration.py"
    spec = importlib.util.spec_from_file_location("vita_hf.ops._registration", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register(NAMESPACES[backend])

"""Load the compiled kernels, and tell which implementations of the operations can run on this machine."""

import ctypes
import functools
import importlib.util
import logging
import os
import threading
import warnings

import torch

from .build import NAMESPACES, BuildError, build, source_dir

logger = logging.getLogger(__name__)

_loading = threading.Lock()
_CHOICES = ("auto", "off", "cuda", "cpp", "pytorch")


def allowed_backends() -> tuple[str, ...]:
    """
    List the backends that the environment variable `VITA_HF_KERNELS` permits, fastest first.

    `auto` (the default) permits all of them; `cuda` and `cpp` permit one kernel, with PyTorch where it cannot run;
    `off` and `pytorch` permit only PyTorch. Whether a kernel can be built is not considered.

    Raises:
        ValueError: if the variable has another value.
    """
    choice = os.environ.get("VITA_HF_KERNELS", "auto").lower()
    if choice not in _CHOICES:
        raise ValueError(f"VITA_HF_KERNELS: expected one of {', '.join(_CHOICES)}, got {choice!r}")
    return (*(name for name in ("cuda", "cpp") if choice in ("auto", name)), "pytorch")


def available_backends() -> list[str]:
    """
    List the values that `backend=…` takes on this machine, fastest first.

    Kernels that are permitted and not built yet are compiled first.

    Example:
    ```python
    >>> from vita_hf.ops import available_backends

    >>> "pytorch" in available_backends()
    True

    ```
    """
    return [name for name in allowed_backends() if is_available(name)]


@torch.compiler.assume_constant_result
def is_available(backend: str, warn: bool = True) -> bool:
    """
    Tell whether a backend is permitted and loads. Kernels cannot be part of an ONNX graph.

    Args:
        backend: `"cuda"`, `"cpp"` or `"pytorch"`.
        warn: Warn the first time that a permitted kernel cannot be loaded.
    """
    if backend == "pytorch":
        return True
    if backend not in allowed_backends() or torch.onnx.is_in_onnx_export() or _device_error(backend):
        return False
    reason = library_error(backend)
    if reason is not None and warn:
        _warn_once(f"the {backend} kernels are not available, slower implementations take over: {reason}")
    return reason is None


def load_error(backend: str) -> str | None:
    """Load the kernels `"cpp"` or `"cuda"`; return why that fails, or `None`."""
    return _device_error(backend) or library_error(backend)


def _device_error(backend: str) -> str | None:
    if backend == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    if backend == "cuda" and torch.version.hip is not None:
        return "the CUDA kernel does not support ROCm"
    return None


def library_error(backend: str) -> str | None:
    """Build a library unless the cache has it, and load it, once a process; return why that fails, or `None`."""
    with _loading:  # threads may use the kernels for the first time together
        return _library_error(backend)


@functools.cache
def _library_error(backend: str) -> str | None:
    try:
        load(backend)
    except (BuildError, OSError) as error:
        logger.info("the %s kernels are not available: %s", backend, error)
        return str(error)
    return None


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def load(backend: str) -> None:
    """Build a library unless the cache has it, load it and register the operators `torch.ops.vita_hf_<backend>`."""
    library = build(backend)
    ctypes.CDLL(str(library))  # its errors name missing symbols and files
    torch.ops.load_library(library)
    path = source_dir() / "torch-ext" / "deformable_attention" / "registration.py"
    spec = importlib.util.spec_from_file_location("vita_hf.ops._registration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register(NAMESPACES[backend])

"""Multi-scale deformable attention (Zhu et al., Deformable DETR, arXiv 2010.04159, eq. 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import loader
from .fallback import sample_and_sum

MAX_ELEMENTS = 2**31 - 1  # of each tensor: kernels index with 32 bits

_KERNELS = {"cpu": "cpp", "cuda": "cuda"}  # the compiled backend of each device


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    backend: str | None = None,
) -> Tensor:
    """
    Sample the value maps of each head bilinearly at its locations and sum the samples by their weights.

    Pixel centers are at half-integers (`align_corners=False`), everything outside a map is zero.

    Args:
        value: `(N, S, heads, dim)`: the maps of all levels, flattened and concatenated, `S` = Σ h·w.
        spatial_shapes: `(h, w)` of each level.
        sampling_locations: `(N, Q, heads, levels, points, 2)`, x first, in `[0, 1]` over the map of each level. Samples
            at locations outside, not-a-number or infinite are zero.
        attention_weights: `(N, Q, heads, levels, points)`, any finite values.
        backend: `"cuda"`, `"cpp"` or `"pytorch"`; by default the fastest that is available for the arguments.

    Returns:
        `(N, Q, heads·dim)` in the dtype of `value`. For half precision, coordinates and sums are float32.

    Raises:
        TypeError: if a tensor is not floating point.
        ValueError: if shapes contradict each other, tensors are on different devices or have more than 2³¹ − 1
            elements, or the backend is unknown or does not support the arguments.
        RuntimeError: if the given backend cannot be loaded.

    Example:
    ```python
    >>> import torch
    >>> from vita_hf.ops import multi_scale_deformable_attention

    >>> value = torch.arange(6.0).view(1, 6, 1, 1)  # a map of 2×3 pixels, one head of one channel
    >>> locations = torch.tensor([[0.5, 0.25], [0.5, 0.5]]).view(1, 1, 1, 1, 2, 2)
    >>> weights = torch.tensor([1.0, 10.0]).view(1, 1, 1, 1, 2)
    >>> multi_scale_deformable_attention(value, [(2, 3)], locations, weights, backend="pytorch")
    tensor([[[26.]]])

    ```
    """
    _check(value, spatial_shapes, "sampling_locations", sampling_locations, "attention_weights", attention_weights)
    backend = _choose(backend, value)
    dtype = _sum_dtype(value)
    sampling_locations, attention_weights = sampling_locations.to(dtype), attention_weights.to(dtype)
    if backend == "pytorch":
        return sample_and_sum(value, spatial_shapes, sampling_locations, attention_weights)
    sizes = [size for shape in spatial_shapes for size in shape]
    return _operators(backend).deformable_attention(value, sizes, sampling_locations, attention_weights)


def deformable_attention_from_projections(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    offsets: Tensor,
    logits: Tensor,
    backend: str | None = None,
) -> Tensor:
    """
    Sample at `reference_points` + `offsets`, with the softmax of `logits` as attention weights.

    The kernels compute locations and weights themselves, in float32 also for half precision. See
    [`multi_scale_deformable_attention`] for `value`, `spatial_shapes`, `backend`, the result and the errors.

    Args:
        value: `(N, S, heads, dim)`.
        spatial_shapes: `(h, w)` of each level.
        reference_points: `(N or 1, Q, levels or 1, 2)`, x first, in `[0, 1]`. Keep them in float32.
        offsets: `(N, Q, heads, levels, points, 2)`, x first, in pixels of each level.
        logits: `(N, Q, heads, levels, points)`; the softmax is over the levels and points of a head.
        backend: `"cuda"`, `"cpp"`, `"pytorch"` or `None`.

    Returns:
        `(N, Q, heads·dim)` in the dtype of `value`.

    Example:
    ```python
    >>> import torch
    >>> from vita_hf.ops import deformable_attention_from_projections

    >>> value = torch.arange(6.0).view(1, 6, 1, 1)  # a map of 2×3 pixels
    >>> center, offsets = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, 1, 1, 1, 4, 2)
    >>> offsets[..., 0] = torch.tensor([-1, 0, 0, 1])
    >>> deformable_attention_from_projections(value, [(2, 3)], center, offsets, torch.zeros(1, 1, 1, 1, 4), "pytorch")
    tensor([[[2.5000]]])

    ```
    """
    _check(value, spatial_shapes, "offsets", offsets, "logits", logits)
    batch, queries, _, levels, points, _ = offsets.shape
    expected = ((1, batch), (queries,), (1, levels), (2,))
    if reference_points.dim() != 4 or not all(n in e for n, e in zip(reference_points.shape, expected)):
        raise ValueError(
            f"reference_points: expected ({batch} or 1, {queries}, {levels} or 1, 2), got "
            f"{tuple(reference_points.shape)}"
        )
    _check_tensor("reference_points", reference_points, value)
    backend = _choose(backend, value)
    dtype = _sum_dtype(value)
    reference_points = reference_points.to(dtype)
    if backend != "pytorch" and offsets.dtype == logits.dtype == value.dtype:
        sizes = [size for shape in spatial_shapes for size in shape]
        return _operators(backend).deformable_attention_from_projections(
            value, sizes, reference_points, offsets, logits
        )
    sizes = torch.tensor([(w, h) for h, w in spatial_shapes], dtype=dtype, device=value.device)
    locations = reference_points[:, :, None, :, None] + offsets.to(dtype) / sizes[:, None]
    weights = logits.flatten(-2).softmax(-1, dtype=dtype).unflatten(-1, (levels, points))
    return multi_scale_deformable_attention(value, spatial_shapes, locations, weights, backend)


def _operators(backend: str):
    return torch.ops.vita_hf_cpp if backend == "cpp" else torch.ops.vita_hf_cuda


def _sum_dtype(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _is_supported(value: Tensor) -> bool:
    """Tell whether the kernel of `value`'s device supports it; the CUDA kernel moves 8 to 256 channels in vectors."""
    if value.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        return False
    heads, dim = value.shape[2:]
    return heads > 0 and dim > 0 and (value.device.type == "cpu" or (dim % 8 == 0 and dim <= 256))


def _choose(backend: str | None, value: Tensor) -> str:
    device = value.device.type
    kernel = _KERNELS.get(device)
    if backend is None:
        return kernel if kernel is not None and _is_supported(value) and loader.is_available(kernel) else "pytorch"
    if backend == "pytorch":
        return backend
    if backend not in ("cuda", "cpp"):
        raise ValueError(f"backend: expected 'cuda', 'cpp' or 'pytorch', got {backend!r}")
    if backend != kernel or not _is_supported(value):
        raise ValueError(
            f"backend {backend!r} does not support value of shape {tuple(value.shape)}, {value.dtype} on {device}"
        )
    if not loader.is_available(backend):
        reason = loader.load_error(backend) or "VITA_HF_KERNELS does not permit it"
        raise RuntimeError(f"backend {backend!r} is not available: {reason}")
    return backend


def _check_tensor(name: str, tensor: Tensor, value: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: expected floating point, got {tensor.dtype}")
    if tensor.device != value.device:
        raise ValueError(f"{name}: expected it on {value.device} like value, got {tensor.device}")
    # An exported graph gets no such condition on its sizes; kernels check again when they run.
    if not torch.compiler.is_compiling() and tensor.numel() > MAX_ELEMENTS:
        raise ValueError(f"{name}: {tensor.numel()} elements, at most {MAX_ELEMENTS} are supported; split the batch")


def _check(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    coordinates_name: str,
    coordinates: Tensor,
    weights_name: str,
    weights: Tensor,
) -> None:
    if value.dim() != 4:
        raise ValueError(f"value: expected (N, S, heads, dim), got {tuple(value.shape)}")
    if coordinates.dim() != 6:
        raise ValueError(
            f"{coordinates_name}: expected (N, Q, heads, levels, points, 2), got {tuple(coordinates.shape)}"
        )
    for name, tensor in (("value", value), (coordinates_name, coordinates), (weights_name, weights)):
        _check_tensor(name, tensor, value)
    batch, length, heads, _ = value.shape
    queries, levels, points = coordinates.shape[1], *coordinates.shape[3:5]
    if points < 1:
        raise ValueError(f"{coordinates_name}: expected at least one point, got {tuple(coordinates.shape)}")
    if any(h < 1 or w < 1 for h, w in spatial_shapes):
        raise ValueError(f"spatial_shapes: expected positive heights and widths, got {list(spatial_shapes)}")
    if not spatial_shapes or len(spatial_shapes) != levels or sum(h * w for h, w in spatial_shapes) != length:
        raise ValueError(
            f"spatial_shapes {list(spatial_shapes)} do not match value {tuple(value.shape)} (N, S, heads, dim) and "
            f"{coordinates_name} {tuple(coordinates.shape)} (N, Q, heads, levels, points, 2)"
        )
    expected = (batch, queries, heads, levels, points)
    if tuple(coordinates.shape) != (*expected, 2) or tuple(weights.shape) != expected:
        raise ValueError(
            f"expected {coordinates_name} {(*expected, 2)} and {weights_name} {expected}, got "
            f"{tuple(coordinates.shape)} and {tuple(weights.shape)}"
        )

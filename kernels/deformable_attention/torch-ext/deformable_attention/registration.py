"""Registers autograd, autocast and the fake kernels for `torch.compile` and `torch.export`."""

import torch
from torch import Tensor

_LIBRARIES = []  # registrations live as long as their Library object


def register(namespace: str) -> None:
    """
    Register output shapes, derivatives and autocast for the operators `torch.ops.<namespace>` of `torch_binding.cpp`.

    Call it once, after loading the library that defines them.
    """
    ops = getattr(torch.ops, namespace)
    library = torch.library.Library(namespace, "FRAGMENT")
    _LIBRARIES.append(library)

    def backward(ctx, grad: Tensor):
        grads = ops.deformable_attention_backward(grad, *_saved(ctx))
        return grads[0], None, *grads[1:]

    def backward_from_projections(ctx, grad: Tensor):
        saved = _saved(ctx)
        grad_value, grad_offsets, grad_logits = ops.deformable_attention_from_projections_backward(grad, *saved)
        grad_points = _grad_reference_points(grad_offsets, *saved[1:3]) if ctx.needs_input_grad[2] else None
        return grad_value, None, grad_points, grad_offsets, grad_logits

    for name, formula in (
        ("deformable_attention", backward),
        ("deformable_attention_from_projections", backward_from_projections),
    ):
        torch.library.register_fake(f"{namespace}::{name}", _fake, lib=library)
        torch.library.register_fake(f"{namespace}::{name}_backward", _fake_backward, lib=library)
        torch.library.register_autograd(f"{namespace}::{name}", formula, setup_context=_save, lib=library)
        torch.library.register_autograd(f"{namespace}::{name}_backward", _no_second_derivative, lib=library)
    for device in ("cpu", "cuda"):
        key = f"Autocast{device.upper()}"
        library.impl("deformable_attention", _autocast(ops.deformable_attention, device, "value"), key)
        library.impl(
            "deformable_attention_from_projections",
            _autocast(ops.deformable_attention_from_projections, device, "value", "offsets", "logits"),
            key,
        )


def _fake(value: Tensor, spatial_shapes: list[int], coordinates: Tensor, *others: Tensor) -> Tensor:
    batch, _, heads, dim = value.shape
    return value.new_empty(batch, coordinates.shape[1], heads * dim)


def _fake_backward(grad: Tensor, value: Tensor, spatial_shapes: list[int], *others: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (value, *others[-2:]))


def _save(ctx, inputs, output) -> None:
    value, ctx.spatial_shapes, *others = inputs
    ctx.save_for_backward(value, *others)


def _saved(ctx) -> tuple:
    value, *others = ctx.saved_tensors
    return value, ctx.spatial_shapes, *others


def _grad_reference_points(grad_offsets: Tensor, spatial_shapes: list[int], points: Tensor) -> Tensor:
    """
    Derive the gradient of the reference points from that of the offsets.

    A location is reference point + offset / size, broadcast over heads, points, and images or levels.
    """
    sizes = torch.tensor(spatial_shapes, dtype=points.dtype, device=points.device).view(-1, 2).flip(-1)
    return (grad_offsets.to(points.dtype).sum((2, 4)) * sizes).sum_to_size(points.shape)


def _no_second_derivative(ctx, *grads: Tensor):
    raise NotImplementedError(
        "deformable attention's compiled backward has no derivative of its own; the PyTorch implementation has one "
        '(backend="pytorch" in vita_hf.ops)'
    )


def _autocast(op, device: str, *narrowed: str):
    """Wrap an operator: cast the arguments named in `narrowed` to autocast's dtype, all others to float32."""
    names = [argument.name for argument in op.default._schema.arguments]

    def run(*args):
        dtype = torch.get_autocast_dtype(device)
        args = [
            x.to(dtype if name in narrowed else torch.float32)
            if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64
            else x
            for name, x in zip(names, args)
        ]
        with torch.autocast(device, enabled=False):
            return op(*args)

    return run

"""The compiled operators as torch sees them: schema, fake kernels, autograd, autocast, compile, export."""

import pytest
import torch

from helpers.backends import require
from helpers.deformable_attention import draw
from vita_hf.ops import deformable_attention_from_projections, multi_scale_deformable_attention

SHAPES = [(4, 3), (2, 5)]
SIZES = [4, 3, 2, 5]


@pytest.fixture(params=["cpp", "cuda"])
def backend(request):
    return require(request.param)


@pytest.fixture
def device(backend):
    return "cuda" if backend == "cuda" else "cpu"


@pytest.fixture
def ops(backend):
    return torch.ops.vita_hf_cpp if backend == "cpp" else torch.ops.vita_hf_cuda


def projections(device, dtype=torch.float32):
    value, offsets, logits = draw(SHAPES, device=device, dtype=dtype)
    points = torch.rand(1, 5, 2, 2, device=device, dtype=offsets.dtype)
    return [x.requires_grad_() for x in (value, points, offsets.to(dtype), logits.to(dtype))]


def test_opcheck(ops, device):
    value, locations, weights = (x.requires_grad_() for x in draw(SHAPES, device=device))
    torch.library.opcheck(ops.deformable_attention.default, (value, SIZES, locations, weights))
    value, points, offsets, logits = projections(device)
    torch.library.opcheck(ops.deformable_attention_from_projections.default, (value, SIZES, points, offsets, logits))
    grad = torch.randn(2, 5, 16, device=device)
    plain = [x.detach() for x in (value, locations, weights)]
    torch.library.opcheck(ops.deformable_attention_backward.default, (grad, plain[0], SIZES, *plain[1:]))
    plain = [x.detach() for x in (value, points, offsets, logits)]
    torch.library.opcheck(
        ops.deformable_attention_from_projections_backward.default, (grad, plain[0], SIZES, *plain[1:])
    )


def test_compile_in_one_graph(backend, device):
    def square(value, points, offsets, logits):
        return deformable_attention_from_projections(value, SHAPES, points, offsets, logits).square()

    inputs = projections(device)
    torch._dynamo.reset()
    compiled = torch.compile(square, fullgraph=True)(*inputs)
    expected = square(*inputs)
    torch.testing.assert_close(compiled, expected)
    gradients = (torch.autograd.grad(x.sum(), inputs) for x in (compiled, expected))
    for actual, wanted in zip(*gradients):
        torch.testing.assert_close(actual, wanted)


class Attention(torch.nn.Module):
    def forward(self, value, locations, weights):
        return multi_scale_deformable_attention(value, SHAPES, locations, weights)


def test_export_with_any_batch_size(backend, device):
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        Attention(),
        draw(SHAPES, device=device),
        dynamic_shapes={name: {0: batch} for name in ("value", "locations", "weights")},
    )
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert f"vita_hf_{backend}.deformable_attention.default" in targets
    inputs = draw(SHAPES, batch=5, seed=1, device=device)
    torch.testing.assert_close(program.module()(*inputs), Attention()(*inputs))


def test_onnx_export_goes_through_pytorch(monkeypatch, backend, device):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    program = torch.export.export(Attention(), draw(SHAPES, device=device))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("embedding_bag" in target for target in targets)
    assert not any("vita_hf" in target for target in targets)


def test_autocast_narrows_values_and_keeps_coordinates(backend, device):
    value, locations, weights = draw(SHAPES, device=device)
    value.requires_grad_()
    with torch.autocast(device, torch.bfloat16):
        out = multi_scale_deformable_attention(value, SHAPES, locations, weights)
    expected = multi_scale_deformable_attention(value.bfloat16(), SHAPES, locations, weights)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)
    out.float().sum().backward()
    assert value.grad.dtype == torch.float32
    inputs = projections(device)
    with torch.autocast(device, torch.bfloat16):
        out = deformable_attention_from_projections(inputs[0], SHAPES, *inputs[1:])
    narrow = [inputs[0].bfloat16(), inputs[1], inputs[2].bfloat16(), inputs[3].bfloat16()]
    assert torch.equal(out, deformable_attention_from_projections(narrow[0], SHAPES, *narrow[1:]))
    doubles = draw(SHAPES, dtype=torch.float64, device=device)
    with torch.autocast(device, torch.bfloat16):
        assert multi_scale_deformable_attention(doubles[0], SHAPES, *doubles[1:]).dtype == torch.float64

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention as grid_sample_version

from vita_hf.ops import available_backends, multi_scale_deformable_attention


def by_definition(value, shapes, locations, weights):
    """Every sample of every head read corner by corner, in float64 Python."""
    batch, _, heads, dim = value.shape
    queries, levels, points = locations.shape[1], len(shapes), locations.shape[4]
    out = torch.zeros(batch, queries, heads, dim, dtype=torch.float64)
    starts = [sum(h * w for h, w in shapes[:level]) for level in range(levels)]
    for n in range(batch):
        for q in range(queries):
            for m in range(heads):
                for level, (h, w) in enumerate(shapes):
                    for p in range(points):
                        x, y = (locations[n, q, m, level, p].double() * torch.tensor([w, h]) - 0.5).tolist()
                        if not (-1 < x < w and -1 < y < h):
                            continue
                        left, top = int(x // 1), int(y // 1)
                        for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                            for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                                if 0 <= row < h and 0 <= column < w:
                                    sample = value[n, starts[level] + row * w + column, m].double()
                                    out[n, q, m] += weights[n, q, m, level, p].double() * share_x * share_y * sample
    return out.flatten(2)


def random_inputs(shapes, batch=2, queries=3, heads=2, dim=4, points=2, dtype=torch.float32, spread=1.6):
    length = sum(h * w for h, w in shapes)
    value = torch.randn(batch, length, heads, dim, dtype=dtype)
    locations = (torch.rand(batch, queries, heads, len(shapes), points, 2, dtype=dtype) - 0.5) * spread + 0.5
    weights = torch.randn(batch, queries, heads, len(shapes), points, dtype=dtype)
    return value, shapes, locations, weights


@pytest.fixture(params=available_backends())
def backend(request):
    return request.param


@pytest.mark.parametrize("shapes", [[(3, 5), (6, 9)], [(1, 1)], [(4, 1), (1, 7), (2, 2), (5, 3)]])
def test_equals_the_definition(backend, shapes):
    for heads, dim, points in ((2, 4, 2), (1, 8, 3), (3, 5, 1)):
        inputs = random_inputs(shapes, heads=heads, dim=dim, points=points)
        ours = multi_scale_deformable_attention(*inputs, backend=backend)
        torch.testing.assert_close(ours.double(), by_definition(*inputs), rtol=1e-5, atol=1e-5)


def test_equals_transformers_forward_and_backward(backend):
    value, shapes, locations, weights = random_inputs([(12, 20), (24, 40)], heads=4, dim=8, points=4)
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    ours = multi_scale_deformable_attention(value, shapes, locations, weights, backend=backend)
    theirs = grid_sample_version(value, shapes, locations, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    upstream = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_gradcheck(backend):
    value, shapes, locations, weights = random_inputs([(3, 4), (2, 2)], batch=1, dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    assert torch.autograd.gradcheck(
        lambda v, x, w: multi_scale_deformable_attention(v, shapes, x, w, backend=backend), inputs
    )


def test_points_far_outside_and_not_finite_contribute_nothing(backend):
    value, shapes, locations, weights = random_inputs([(3, 4)], points=4, spread=0.8)
    value.requires_grad_(), weights.requires_grad_()
    kept = multi_scale_deformable_attention(value, shapes, locations[..., :1, :], weights[..., :1], backend=backend)
    for bad in (float("nan"), float("inf"), -float("inf"), 1e30, -7.0):
        locations[..., 1:, :] = bad
        ours = multi_scale_deformable_attention(value, shapes, locations, weights, backend=backend)
        torch.testing.assert_close(ours, kept)
        grads = torch.autograd.grad(ours.sum(), (value, weights))
        assert all(grad.isfinite().all() for grad in grads)
        assert (grads[1][..., 1:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_coordinates_and_sums_in_float32(backend, dtype):
    value, shapes, locations, weights = random_inputs([(24, 40), (48, 80)], heads=4, dim=8, points=4, spread=1.0)
    wanted = multi_scale_deformable_attention(value.to(dtype).float(), shapes, locations, weights, backend=backend)
    ours = multi_scale_deformable_attention(value.to(dtype), shapes, locations, weights, backend=backend)
    assert ours.dtype == dtype
    assert (ours.float() - wanted).norm() / wanted.norm() < (3e-3 if dtype == torch.bfloat16 else 4e-4)


def test_nothing_to_do(backend):
    for batch, queries in ((0, 3), (2, 0)):
        inputs = random_inputs([(2, 3)], batch=batch, queries=queries)
        assert multi_scale_deformable_attention(*inputs, backend=backend).shape == (batch, queries, 8)


def test_strided_inputs(backend):
    value, shapes, locations, weights = random_inputs([(4, 6)])
    wanted = multi_scale_deformable_attention(value, shapes, locations, weights, backend=backend)
    strided = value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    far = locations.repeat_interleave(2, 1)[:, ::2]
    assert not strided.is_contiguous() and not far.is_contiguous()
    ours = multi_scale_deformable_attention(strided, shapes, far, weights, backend=backend)
    torch.testing.assert_close(ours, wanted)


def test_wrong_arguments_are_named():
    value, shapes, locations, weights = random_inputs([(2, 3), (4, 6)])
    with pytest.raises(ValueError, match=r"backend: expected one of .*got 'opencl'"):
        multi_scale_deformable_attention(value, shapes, locations, weights, backend="opencl")
    with pytest.raises(ValueError, match=r"spatial_shapes \[\(2, 3\)\] do not match value"):
        multi_scale_deformable_attention(value, shapes[:1], locations, weights)
    with pytest.raises(ValueError, match=r"expected sampling_locations \(2, 3, 2, 2, 2, 2\).*got \(2, 3, 1, 2, 2, 2\)"):
        multi_scale_deformable_attention(value, shapes, locations[:, :, :1], weights)
    with pytest.raises(ValueError, match=r"attention_weights \(2, 3, 2, 2, 2\).*\(2, 3, 2, 2, 1\)"):
        multi_scale_deformable_attention(value, shapes, locations, weights[..., :1])

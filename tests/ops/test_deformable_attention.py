"""Every backend that can run here against a direct transcription of the definition in float64."""

import math
import random

import pytest
import torch

from helpers.backends import require
from helpers.deformable_attention import draw, relative_error
from vita_hf.ops import deformable_attention_from_projections, multi_scale_deformable_attention
from vita_hf.ops.deformable_attention import MAX_ELEMENTS

BACKENDS = ("pytorch", "cpp", "cuda")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return require(request.param)


@pytest.fixture
def device(backend):
    return "cuda" if backend == "cuda" else "cpu"


def reference(value, spatial_shapes, locations, weights):
    """Eq. 3, a loop over levels, points and corners; no clamping, no shared code with the package."""
    value, locations, weights = value.double(), locations.double(), weights.double()
    batch, queries, heads, _, points, _ = locations.shape
    images = torch.arange(batch, device=value.device)[:, None, None]
    head_index = torch.arange(heads, device=value.device)[None, None, :]
    total = value.new_zeros(batch, queries, heads, value.shape[3])
    start = 0
    for level, (height, width) in enumerate(spatial_shapes):
        grid = value[:, start : start + height * width].unflatten(1, (height, width))
        start += height * width
        for point in range(points):
            x = locations[:, :, :, level, point, 0] * width - 0.5
            y = locations[:, :, :, level, point, 1] * height - 0.5
            left, top = x.detach().floor(), y.detach().floor()
            for corner_x in (left, left + 1):
                for corner_y in (top, top + 1):
                    on_map = (corner_x >= 0) & (corner_x < width) & (corner_y >= 0) & (corner_y < height)
                    column = torch.where(on_map, corner_x, 0).long()
                    row = torch.where(on_map, corner_y, 0).long()
                    share = (1 - (x - corner_x).abs()) * (1 - (y - corner_y).abs()) * weights[:, :, :, level, point]
                    sample = grid[images, row, column, head_index]
                    total = total + torch.where(on_map[..., None], share[..., None] * sample, 0)
    return total.flatten(2)


def random_case(seed):
    rng = random.Random(seed)
    spatial_shapes = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(rng.randint(1, 8))]
    return spatial_shapes, {
        "batch": rng.randint(1, 3),
        "queries": rng.randint(1, 7),
        "heads": rng.choice((1, 2, 3, 8)),
        "dim": rng.choice((8, 16, 24, 32, 40, 64, 128, 256, 7, 13, 33)),
        "points": rng.randint(1, 16),
        "seed": seed,
    }


def run(function, inputs, spatial_shapes, grad, **kwargs):
    """Output and gradients of the tensors in `inputs`; the first argument of `function` is followed by the shapes."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(inputs[0], spatial_shapes, *inputs[1:], **kwargs)
    return out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))


def odd_for_cuda(backend, dim):
    return backend == "cuda" and dim % 8 != 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.float64, 1e-13), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
    ids=("float32", "float64", "bfloat16", "float16"),
)
def test_equals_the_definition_on_random_shapes(backend, device, dtype, tolerance, seed):
    spatial_shapes, sizes = random_case(seed)
    if odd_for_cuda(backend, sizes["dim"]):
        pytest.skip("odd head sizes go through PyTorch on CUDA")
    inputs = draw(spatial_shapes, dtype=dtype, device=device, **sizes)
    batch, queries, heads = inputs[2].shape[:3]
    grad = torch.randn(batch, queries, heads * sizes["dim"]).to(device, dtype)
    actual = run(multi_scale_deformable_attention, inputs, spatial_shapes, grad, backend=backend)
    expected = run(reference, [x.double() for x in inputs], spatial_shapes, grad.double())
    assert actual[0].dtype == actual[1].dtype == dtype
    for name, a, e in zip(("output", "value", "locations", "weights"), actual, expected):
        assert relative_error(a, e) < tolerance, name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-5), (torch.float64, 1e-12), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
    ids=("float32", "float64", "bfloat16", "float16"),
)
def test_projections_equal_softmax_and_locations_by_hand(backend, device, dtype, tolerance, seed):
    spatial_shapes, sizes = random_case(seed)
    if odd_for_cuda(backend, sizes["dim"]):
        pytest.skip("odd head sizes go through PyTorch on CUDA")
    value, locations, logits = draw(spatial_shapes, dtype=dtype, device=device, **sizes)
    batch, queries, heads, levels, _ = logits.shape
    logits = (3 * logits).to(dtype)
    map_sizes = torch.tensor([(w, h) for h, w in spatial_shapes], dtype=torch.float64, device=device)[:, None]
    shape = (batch if seed % 2 else 1, queries, levels if seed % 3 else 1, 2)
    # Multiples of 1/8: offsets are exact in every dtype, the sum with the reference point is not near pixel centers.
    reference_points = torch.full(shape, 0.5, dtype=locations.dtype, device=device)
    offsets = (((locations.double() - 0.5) * map_sizes * 8).round() / 8 + 1 / 16).to(dtype)

    def by_hand(value, spatial_shapes, reference_points, offsets, logits):
        locations = reference_points[:, :, None, :, None] + offsets / map_sizes
        weights = logits.flatten(3).softmax(-1).view(logits.shape)
        return reference(value, spatial_shapes, locations, weights)

    inputs = (value, reference_points, offsets, logits)
    grad = torch.randn(batch, queries, heads * sizes["dim"]).to(device, dtype)
    actual = run(deformable_attention_from_projections, inputs, spatial_shapes, grad, backend=backend)
    expected = run(by_hand, [x.double() for x in inputs], spatial_shapes, grad.double())
    for name, a, e in zip(("output", "value", "reference_points", "offsets", "logits"), actual, expected):
        # Half-precision gradients of offsets are rounded before they are summed to those of the reference points.
        assert relative_error(a, e) < (5 if name == "reference_points" else 1) * tolerance, name


def test_gradcheck(backend, device):
    spatial_shapes = [(3, 4), (2, 1)]
    value, locations, weights = draw(spatial_shapes, queries=3, points=2, dtype=torch.float64, device=device)
    inputs = [x.requires_grad_() for x in (value, locations, weights)]

    def plain(value, locations, weights):
        return multi_scale_deformable_attention(value, spatial_shapes, locations, weights, backend=backend)

    assert torch.autograd.gradcheck(plain, inputs, eps=1e-7, fast_mode=True)

    points = torch.rand(2, 3, 2, 2, dtype=torch.float64, device=device)
    offsets = torch.randn(2, 3, 2, 2, 2, 2, dtype=torch.float64, device=device)

    def fused(value, points, offsets, logits):
        return deformable_attention_from_projections(value, spatial_shapes, points, offsets, logits, backend=backend)

    inputs = [x.detach().requires_grad_() for x in (value, points, offsets, weights)]
    assert torch.autograd.gradcheck(fused, inputs, eps=1e-7, fast_mode=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, -1e30, 3e9, -3e9, 1e4])
def test_locations_that_are_nowhere_contribute_nothing(backend, device, bad):
    spatial_shapes = [(4, 3), (1, 1)]
    value, locations, weights = draw(spatial_shapes, device=device)
    expected_weights = weights.clone()
    for coordinate in (0, 1):
        locations[:, :, :, 0, coordinate, coordinate] = bad
        expected_weights[:, :, :, 0, coordinate] = 0
    grad = torch.randn(2, 5, 16, device=device)
    actual = run(multi_scale_deformable_attention, (value, locations, weights), spatial_shapes, grad, backend=backend)
    clean = locations.nan_to_num(0, 0, 0).clamp(-9, 9)
    expected = run(reference, (value, clean, expected_weights), spatial_shapes, grad)
    torch.testing.assert_close(actual[0].double(), expected[0].double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual[1].double(), expected[1].double(), rtol=1e-4, atol=1e-5)
    for gradient in actual[2:]:
        assert gradient.isfinite().all()
        assert (gradient[:, :, :, 0, :2].flatten() == 0).all()


@pytest.mark.parametrize(("batch", "queries"), [(0, 5), (2, 0), (0, 0)])
def test_empty_batch_and_empty_queries(backend, device, batch, queries):
    spatial_shapes = [(4, 3), (1, 1)]
    inputs = draw(spatial_shapes, batch=batch, queries=queries, device=device)
    grad = torch.zeros(batch, queries, 16, device=device)
    out, grad_value, *_ = run(multi_scale_deformable_attention, inputs, spatial_shapes, grad, backend=backend)
    assert out.shape == (batch, queries, 16)
    assert (grad_value == 0).all()
    offsets, logits = inputs[1], inputs[2]
    points = torch.rand(1, queries, 1, 2, device=device)
    out = deformable_attention_from_projections(inputs[0], spatial_shapes, points, offsets, logits, backend=backend)
    assert out.shape == (batch, queries, 16)


def test_strided_inputs(backend, device):
    spatial_shapes = [(4, 3), (2, 5)]
    inputs = draw(spatial_shapes, device=device)
    grad = torch.randn(2, 5, 16, device=device)
    expected = run(multi_scale_deformable_attention, inputs, spatial_shapes, grad, backend=backend)
    strided = [x.transpose(0, 1).contiguous().transpose(0, 1).repeat_interleave(2, -1)[..., ::2] for x in inputs]
    assert not any(x.is_contiguous() for x in strided)
    grad = grad.expand(3, -1, -1, -1)[1].transpose(1, 2).contiguous().transpose(1, 2)
    actual = run(multi_scale_deformable_attention, strided, spatial_shapes, grad, backend=backend)
    for a, e in zip(actual, expected):
        torch.testing.assert_close(a, e)


def test_coordinates_of_half_precision_inputs_stay_float32(backend, device):
    """A map 4000 wide whose value is its column: bfloat16 coordinates would be off by up to 8 pixels."""
    spatial_shapes = [(1, 4096)]
    value = torch.zeros(1, 4096, 1, 8, device=device)
    value[0, 3000] = 1
    locations = torch.tensor([3000.5 / 4096, 0.5], device=device).view(1, 1, 1, 1, 1, 2)
    weights = torch.ones(1, 1, 1, 1, 1, device=device)
    out = multi_scale_deformable_attention(value.bfloat16(), spatial_shapes, locations, weights, backend=backend)
    assert out.dtype == torch.bfloat16
    assert (out == 1).all()


@pytest.mark.parametrize("backend", ["cpp"])
def test_same_numbers_with_any_number_of_threads(backend, device):
    require(backend)
    spatial_shapes = [(12, 20), (6, 10)]
    inputs = draw(spatial_shapes, queries=300, heads=3, batch=1, device=device)
    grad = torch.randn(1, 300, 24)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(run(multi_scale_deformable_attention, inputs, spatial_shapes, grad, backend=backend))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other):
            assert torch.equal(a, b)


def test_deterministic_algorithms(backend, device):
    """A backward that may differ from run to run refuses; the others run and repeat themselves bit by bit."""
    spatial_shapes = [(4, 3), (2, 5)]
    inputs = draw(spatial_shapes, device=device)
    grad = torch.randn(2, 5, 16, device=device)
    torch.use_deterministic_algorithms(True)
    try:
        if backend == "cuda":
            with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
                run(multi_scale_deformable_attention, inputs, spatial_shapes, grad, backend=backend)
        else:
            first, second = (
                run(multi_scale_deformable_attention, inputs, spatial_shapes, grad, backend=backend) for _ in range(2)
            )
            assert all(torch.equal(a, b) for a, b in zip(first, second))
    finally:
        torch.use_deterministic_algorithms(False)


def test_no_silent_second_derivative(backend, device):
    spatial_shapes = [(4, 3)]
    inputs = [x.requires_grad_() for x in draw(spatial_shapes, dtype=torch.float64, device=device)]
    out = multi_scale_deformable_attention(inputs[0], spatial_shapes, *inputs[1:], backend=backend)
    (grad,) = torch.autograd.grad(out.square().sum(), inputs[2], create_graph=True)
    if backend == "pytorch":
        pytest.skip("PyTorch's own operations: whatever they have")
    with pytest.raises(NotImplementedError, match="no derivative of its own"):
        grad.sum().backward()


SHAPES = [(4, 3), (2, 5)]


def arguments(**changes):
    value, locations, weights = draw(SHAPES)
    return {
        "value": value,
        "spatial_shapes": SHAPES,
        "sampling_locations": locations,
        "attention_weights": weights,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"value": torch.zeros(2, 22, 16)}, ValueError, r"value: expected \(N, S, heads, dim\), got \(2, 22, 16\)"),
        ({"value": torch.zeros(2, 21, 2, 8)}, ValueError, r"spatial_shapes .* do not match value \(2, 21, 2, 8\)"),
        ({"value": torch.zeros(3, 22, 2, 8)}, ValueError, r"expected sampling_locations \(3, 5, 2, 2, 3, 2\)"),
        ({"value": torch.zeros(2, 22, 2, 8, dtype=torch.int32)}, TypeError, "value: expected floating point"),
        ({"sampling_locations": torch.zeros(2, 5, 2, 2, 3)}, ValueError, "sampling_locations: expected .*levels"),
        ({"sampling_locations": torch.zeros(2, 5, 2, 2, 3, 3)}, ValueError, "expected sampling_locations"),
        ({"attention_weights": torch.zeros(2, 5, 2, 2, 4)}, ValueError, "and attention_weights"),
        ({"attention_weights": torch.ones(2, 5, 2, 2, 3).long()}, TypeError, "attention_weights: expected floating"),
        ({"attention_weights": torch.zeros(2, 5, 2, 2, 3, device="meta")}, ValueError, "expected it on cpu like value"),
        ({"sampling_locations": torch.zeros(2, 5, 2, 2, 0, 2)}, ValueError, "expected at least one point"),
        ({"spatial_shapes": [(4, 3)]}, ValueError, "do not match"),
        ({"spatial_shapes": [(-4, -3), (2, 5)]}, ValueError, "expected positive heights and widths"),
        ({"spatial_shapes": [(22, 1), (0, 7)]}, ValueError, "expected positive heights and widths"),
        ({"backend": "triton"}, ValueError, "backend: expected 'cuda', 'cpp' or 'pytorch', got 'triton'"),
        ({"backend": "cuda"}, ValueError, "backend 'cuda' does not support value of shape .* on cpu"),
    ],
)
def test_mistakes_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        multi_scale_deformable_attention(**arguments(**changes))


@pytest.mark.parametrize("shape", [(3, 5, 2, 2), (2, 4, 2, 2), (2, 5, 3, 2), (2, 5, 2, 4), (5, 2)])
def test_reference_points_of_a_wrong_shape(shape):
    value, offsets, logits = draw(SHAPES)
    with pytest.raises(ValueError, match=r"reference_points: expected \(2 or 1, 5, 2 or 1, 2\)"):
        deformable_attention_from_projections(value, SHAPES, torch.zeros(shape), offsets, logits)


def test_more_elements_than_32_bits_can_count_are_refused():
    side = 2**14
    huge = torch.zeros(1).expand(1, side * side, 1, 8)  # one stored element
    locations, weights = torch.zeros(1, 1, 1, 1, 1, 2), torch.zeros(1, 1, 1, 1, 1)
    assert huge.numel() == MAX_ELEMENTS + 1
    with pytest.raises(ValueError, match="value: 2147483648 elements, at most 2147483647"):
        multi_scale_deformable_attention(huge, [(side, side)], locations, weights)
    value = torch.zeros(1, 1, 1, 8)
    many = 2**30
    with pytest.raises(ValueError, match="sampling_locations: 2147483648 elements"):
        multi_scale_deformable_attention(
            value, [(1, 1)], locations.expand(1, many, 1, 1, 1, 2), weights.expand(1, many, 1, 1, 1)
        )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"value": torch.zeros(2, 22, 2, 8).long()}, TypeError, "value: expected float32, float64, float16 or bfl"),
        ({"value": torch.zeros(2, 22, 16)}, ValueError, r"value: expected \(N, S, heads, dim\)"),
        ({"value": torch.zeros(2, 22, 2, 0)}, ValueError, "at least one head and channel"),
        ({"value": torch.zeros(2, 22, 2, 8).double()}, TypeError, "sampling_locations: expected Double, got Float"),
        ({"value": torch.zeros(1).expand(1, 2**28, 1, 8)}, ValueError, "value: 2147483648 elements"),
        ({"sampling_locations": torch.zeros(2, 5, 2, 2, 3)}, ValueError, "sampling_locations: expected .N, Q"),
        ({"attention_weights": torch.zeros(2, 5, 2, 2, 4)}, ValueError, "attention_weights: expected shape"),
        ({"spatial_shapes": [4, 3, 2]}, ValueError, "height and width of each of 2 levels"),
        ({"spatial_shapes": [4, 3, 2, 6]}, ValueError, "are 24 pixels, value has 22 rows"),
        ({"spatial_shapes": [4, 3, -2, -5]}, ValueError, "expected positive sizes"),
        ({"spatial_shapes": [2**62, 2**62, 2, 5]}, ValueError, "expected positive sizes"),
    ],
)
def test_the_operator_itself_checks_too(changes, error, message):
    """Exported graphs and other languages reach it without the Python function."""
    require("cpp")
    call = arguments(spatial_shapes=[4, 3, 2, 5])
    call.update(changes)
    with pytest.raises(error, match=message):
        torch.ops.vita_hf_cpp.deformable_attention(*call.values())

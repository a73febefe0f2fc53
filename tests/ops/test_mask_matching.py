"""Every implementation of matching's sums over points against their definition in float64."""

import pytest
import torch
import torch.nn.functional as F

from helpers.backends import needs_gpu, require
from vita_hf.ops import point_samples
from vita_hf.ops.mask_matching import MaskPointSums, mask_point_sums


@pytest.fixture(params=["pytorch", "cpp", pytest.param("cuda", marks=needs_gpu)])
def backend(request, monkeypatch):
    if request.param == "cpp":
        require("cpp")
    monkeypatch.setenv("VITA_HF_KERNELS", "cpp" if request.param == "cpp" else "pytorch")
    return request.param


def sums(backend: str, masks, size, points, targets, counts) -> MaskPointSums:
    device = "cuda" if backend == "cuda" else "cpu"
    result = mask_point_sums(masks.to(device), size, points.to(device), targets.to(device), counts)
    return MaskPointSums(*(of.cpu() for of in result))


def samples(maps, points):
    """`(C, H, W)` at `(P, 2)`: `(C, P)` in float64."""
    grid = points.double() * 2 - 1
    return F.grid_sample(maps.double()[None], grid[None, None], align_corners=False)[0, :, 0]


def reference(masks, size, points, targets, counts) -> MaskPointSums:
    results = []
    for item, of_item in enumerate(targets.split(counts)):
        results.append(0)
        for frame in range(masks.shape[1]):
            x = samples(masks[item, frame].T.unflatten(1, size), points[item])
            t = samples(of_item[:, frame], points[item]) if len(of_item) else x[:0]
            inside = (t[:, None] * x).sum(-1), (t[:, None] * x.sigmoid()).sum(-1)
            one = F.softplus(x).sum(1)[None], x.sigmoid().sum(1)[None], *inside, t.sum(1)
            results[item] = [a + b for a, b in zip(results[item], one)] if frame else one
    return MaskPointSums(*map(torch.cat, zip(*results)))


def draw(queries=16, points=300, counts=(2, 3), frames=2, size=(7, 9), target_size=(20, 30), scale=4.0):
    generator = torch.Generator().manual_seed(queries + points)
    masks = torch.randn(len(counts), frames, size[0] * size[1], queries, generator=generator) * scale
    where = torch.rand(len(counts), points, 2, generator=generator) * 1.4 - 0.2
    targets = torch.rand(sum(counts), frames, *target_size, generator=generator) > 0.7
    return masks, size, where, targets, list(counts)


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"queries": 100, "points": 1000, "counts": (5,), "frames": 1},
        {"queries": 1, "points": 1, "counts": (1, 1), "frames": 5},
        {"queries": 13, "points": 67, "counts": (0, 4, 0, 1)},
        {"counts": (0,)},
        {"size": (1, 5), "target_size": (1, 1)},
        {"scale": 300.0},
    ],
    ids=str,
)
def test_by_definition(backend, case):
    given = draw(**case)
    got, wanted = sums(backend, *given), reference(*given)
    assert all(of.dtype == torch.float32 for of in got)
    atol = 3e-5 * case.get("scale", 4)  # positive and negative summands leave little: rounding is relative to them
    for name, a, b in zip(MaskPointSums._fields, got, wanted):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def test_frames_taken_together_or_apart_are_the_same(backend, monkeypatch):
    given = draw(counts=(2, 1, 3), frames=3)
    together = sums(backend, *given)
    monkeypatch.setattr(point_samples, "chunk_elements", lambda device: 2 * 16 * 300)  # two frames' samples
    for name, a, b in zip(MaskPointSums._fields, sums(backend, *given), together):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_an_endless_logit_changes_its_own_points_only(backend):
    masks, size, points, targets, counts = draw(counts=(1,), frames=1)
    masks[0, 0, 0] = torch.inf
    points = points.clamp(0.5, 1)  # up to the far edges, beyond which there are no pixels
    assert all(of.isfinite().all() for of in sums(backend, masks, size, points, targets, counts))


def test_saturated_logits(backend):
    """Neither the sigmoid nor the softplus loses what one factor or one exponential can't hold."""
    masks = torch.tensor([-1e4, -90.0, -30.0, 30.0, 90.0, 1e4]).expand(1, 1, 4, 6)
    points = torch.full((1, 128, 2), 0.5)
    got = sums(backend, masks, (2, 2), points, torch.ones(1, 1, 2, 2, dtype=torch.bool), [1])
    exact = masks[0, 0, 0].double()
    torch.testing.assert_close(got.softplus[0].double(), 128 * F.softplus(exact), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(got.sigmoid_inside[0].double(), 128 * exact.sigmoid(), rtol=1e-5, atol=1e-4)


def test_points_that_are_nowhere_see_nothing(backend):
    masks, size, points, targets, counts = draw(counts=(2,), points=6, frames=1)
    points[0] = torch.tensor([[3, 0.5], [0.5, 3], [-3, 0.5], [0.5, -3], [1e9, 0], [0, -1e9]])
    if backend == "cpp":  # addresses are made of them; `grid_sample` takes nan for a corner
        points[0, :4] = torch.tensor([[torch.nan, 0.5], [0.5, torch.nan], [torch.inf, 0.5], [0.5, -torch.inf]])
    got = sums(backend, masks, size, points, targets, counts)
    torch.testing.assert_close(got.softplus, torch.full_like(got.softplus, 6 * 0.6931472))
    torch.testing.assert_close(got.sigmoid, torch.full_like(got.sigmoid, 3))
    assert not any(of.any() for of in got[2:])


def test_not_finite_logits_stay_so(backend):
    masks, *given = draw(counts=(1,), points=50)
    masks[..., 3] = torch.nan
    masks[..., 5] = torch.inf
    got = sums(backend, masks, *given)
    assert got.softplus[0].isfinite().tolist() == [query not in (3, 5) for query in range(16)]
    assert got.sigmoid[0, 3].isnan()


def test_results_do_not_depend_on_the_number_of_threads():
    require("cpp")
    given, threads = draw(queries=100, points=5000, counts=(3, 1)), torch.get_num_threads()
    try:
        results = [torch.set_num_threads(n) or mask_point_sums(*given) for n in (1, 2, 5)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(2, 2, 62, 4)}, r"masks \(2, frames, \[7, 9\], queries\), got \[2, 2, 62, 4\]"),
        ({0: torch.zeros(2, 2, 63, 4, dtype=torch.float64)}, "expected float32 masks and points and bool targets"),
        ({2: torch.zeros(1, 5, 2)}, r"expected points \(2, count, 2\), got \[1, 5, 2\]"),
        ({3: torch.zeros(4, 2, 20, 30).bool()}, r"expected targets \(5, 2, height, width\), got \[4, 2, 20, 30\]"),
        ({3: torch.zeros(5, 1, 20, 30).bool()}, r"expected targets \(5, 2, height, width\), got \[5, 1, 20, 30\]"),
        ({3: torch.zeros(5, 2, 20, 30)}, "bool targets, got Float, Float and Float"),
        ({4: [6, -1]}, "negative count of targets"),
    ],
    ids=str,
)
def test_the_kernel_refuses_what_does_not_fit(change, message):
    require("cpp")
    given = list(draw())
    for position, value in change.items():
        given[position] = value
    with pytest.raises((ValueError, TypeError), match=message):
        torch.ops.vita_hf_cpp.mask_point_sums(*given)

"""Matching's sums over points against their definition in float64."""

import pytest
import torch
import torch.nn.functional as F

from helpers.backends import needs_gpu
from vita_hf.loss_matching import MaskPointSums, sum_masks_at_points
from vita_hf.loss_targets import Targets


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=needs_gpu)])
def device(request):
    return request.param


def sums(device: str, masks, size, points, targets, counts) -> MaskPointSums:
    rows = torch.arange(len(targets), device=device)
    targets = Targets(rows, targets.to(device), rows, counts)
    result = sum_masks_at_points(masks.to(device), size, points.to(device), targets)
    return MaskPointSums(*(values.cpu() for values in result))


def samples(maps, points):
    """`(C, H, W)` at `(P, 2)`: `(C, P)` in float64."""
    grid = points.double() * 2 - 1
    return F.grid_sample(maps.double()[None], grid[None, None], align_corners=False)[0, :, 0]


def reference(masks, size, points, targets, counts) -> list[list[torch.Tensor]]:
    """For each item the five sums, over its own targets only."""
    results = []
    for item, item_targets in enumerate(targets.split(counts)):
        total = [0] * 5
        for frame in range(masks.shape[1]):
            x = samples(masks[item, frame].T.unflatten(1, size), points[item])
            t = samples(item_targets[:, frame], points[item]) if len(item_targets) else x[:0]
            products = (x[:, None] * t).sum(-1), (x.sigmoid()[:, None] * t).sum(-1)
            one = F.softplus(x).sum(1), x.sigmoid().sum(1), *products, t.sum(1)
            total = [a + b for a, b in zip(total, one)]
        results.append(total)
    return results


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
def test_by_definition(device, case):
    given = draw(**case)
    got = sums(device, *given)
    assert all(values.dtype == torch.float32 for values in got)
    atol = 3e-5 * case.get("scale", 4)  # positive and negative summands leave little: rounding is relative to them
    for item, (count, expected) in enumerate(zip(given[-1], reference(*given), strict=True)):
        ours = [got.softplus, got.sigmoid, *(values[..., :count] for values in got[2:])]
        for name, a, b in zip(MaskPointSums._fields, ours, expected):
            torch.testing.assert_close(
                a[item].double(), b, rtol=1e-5, atol=atol, msg=lambda m, name=name: f"{name}: {m}"
            )


def test_an_infinite_logit_changes_its_own_points_only(device):
    masks, size, points, targets, counts = draw(counts=(1,), frames=1)
    masks[0, 0, 0] = torch.inf
    points = points.clamp(0.5, 1)  # up to the far edges, beyond which there are no pixels
    assert all(values.isfinite().all() for values in sums(device, masks, size, points, targets, counts))


def test_saturated_logits(device):
    """Neither the sigmoid nor the softplus loses what one factor or one exponential cannot hold."""
    masks = torch.tensor([-1e4, -90.0, -30.0, 30.0, 90.0, 1e4]).expand(1, 1, 4, 6)
    points = torch.full((1, 128, 2), 0.5)
    got = sums(device, masks, (2, 2), points, torch.ones(1, 1, 2, 2, dtype=torch.bool), [1])
    exact = masks[0, 0, 0].double()
    torch.testing.assert_close(got.softplus[0].double(), 128 * F.softplus(exact), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(got.sigmoid_inside[0, :, 0].double(), 128 * exact.sigmoid(), rtol=1e-5, atol=1e-4)


def test_points_outside_see_nothing(device):
    masks, size, points, targets, counts = draw(counts=(2,), points=6, frames=1)
    points[0] = torch.tensor([[3, 0.5], [0.5, 3], [-3, 0.5], [0.5, -3], [1e9, 0], [0, -1e9]])
    got = sums(device, masks, size, points, targets, counts)
    torch.testing.assert_close(got.softplus, torch.full_like(got.softplus, 6 * 0.6931472))
    torch.testing.assert_close(got.sigmoid, torch.full_like(got.sigmoid, 3))
    assert not any(values.any() for values in got[2:])


def test_logits_that_are_not_finite_stay_so(device):
    masks, *given = draw(counts=(1,), points=50)
    masks[..., 3] = torch.nan
    masks[..., 5] = torch.inf
    got = sums(device, masks, *given)
    assert got.softplus[0].isfinite().tolist() == [query not in (3, 5) for query in range(16)]
    assert got.sigmoid[0, 3].isnan()

"""Random arguments of deformable attention."""

import torch


def draw(
    spatial_shapes, batch=2, queries=5, heads=2, dim=8, points=3, dtype=torch.float32, device="cpu", seed=0, outside=0.4
):
    """Draw value, locations and weights; locations reach `outside` map sizes beyond the borders.

    They keep a hundredth of a pixel away from pixel centers, where the derivative jumps and rounding decides.
    """
    generator = torch.Generator().manual_seed(seed)
    levels, length = len(spatial_shapes), sum(h * w for h, w in spatial_shapes)
    value = torch.randn(batch, length, heads, dim, generator=generator, dtype=torch.float64)
    shape = (batch, queries, heads, levels, points)
    sizes = torch.tensor([(w, h) for h, w in spatial_shapes], dtype=torch.float64)[:, None]
    pixels = (torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * (1 + 2 * outside) - outside) * sizes
    pixels = pixels.floor() + 0.01 + 0.98 * torch.rand(*shape, 2, generator=generator, dtype=torch.float64)
    locations = (pixels + 0.5) / sizes
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return value.to(device, dtype), locations.to(device, wide), weights.to(device, wide)


def relative_error(actual, expected):
    expected = expected.double()
    return ((actual.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()

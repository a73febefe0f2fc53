"""What matching needs to know of every pair of a predicted mask and a target: sums over random points."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from . import loader, point_samples


class MaskPointSums(NamedTuple):
    """Sums over points of mask logits x and their targets t of some items, in float32.

    Attributes:
        softplus, sigmoid: of x, `(I, Q)`, for each item and query.
        logits_inside, sigmoid_inside: of x·t and σ(x)·t, `(N, Q)`, for each target and each query of its item.
        areas: of t, `(N,)`.
    """

    softplus: Tensor
    sigmoid: Tensor
    logits_inside: Tensor
    sigmoid_inside: Tensor
    areas: Tensor


@torch.no_grad()
def mask_point_sums(
    masks: Tensor, size: tuple[int, int], points: Tensor, targets: Tensor, counts: Sequence[int]
) -> MaskPointSums:
    """Sums over each item's points in all its frames.

    Masks and targets are sampled bilinearly, zero beyond the edges. On the CPU the C++ kernel does it where there is
    one, otherwise PyTorch's operations do.

    Args:
        masks: `(I, T, h·w, Q)` float32 logits of each item's queries.
        size: `(h, w)`.
        points: `(I, P, 2)` float32, x first, in `[0, 1]`, the same in each of the item's frames.
        targets: `(N, T, H, W)` bool, those of all items one after another.
        counts: how many each item has.
    """
    if masks.device.type == "cpu" and loader.is_available("cpp"):
        return MaskPointSums(*torch.ops.vita_hf_cpp.mask_point_sums(masks, size, points, targets, counts))
    items, frames, _, queries = masks.shape
    where = torch.cat([of_item.expand(count * frames, -1, -1) for of_item, count in zip(points, counts)])
    inside = point_samples.mask_point_values(targets.flatten(0, 1), where).unflatten(0, (-1, frames))
    rows = pad_sequence(inside.split(list(counts)), batch_first=True)  # (I, most, T, P)
    rows, grids = rows.transpose(1, 2).flatten(0, 1), (points * 2 - 1).repeat_interleave(frames, 0)[:, None]
    maps = masks.flatten(0, 1).mT.unflatten(2, size)
    chunk = max(1, point_samples.chunk_elements(masks.device) // (queries * points.shape[1]))  # items' frames at once
    of_frames = [
        sum_samples(F.grid_sample(some, grid, align_corners=False)[:, :, 0], marked)
        for some, grid, marked in zip(maps.split(chunk), grids.split(chunk), rows.split(chunk))
    ]
    softplus, sigmoid, *products = (torch.cat(of).unflatten(0, (items, frames)).sum(1) for of in zip(*of_frames))
    of_targets = (torch.cat([of[:, :count] for of, count in zip(product, counts)], 1).T for product in products)
    return MaskPointSums(softplus, sigmoid, *of_targets, inside.sum((1, 2)))


def sum_samples(logits: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From samples of masks `(I, Q, P)`, which are overwritten, and of targets `(I, N, P)`.

    Returns:
        As in [`MaskPointSums`] `softplus` and `sigmoid`, `(I, Q)`, and of each pair `logits_inside` and
        `sigmoid_inside`, `(I, Q, N)`.
    """
    logits_inside = logits @ inside.mT
    softplus, probabilities = _softplus_and_sigmoid(logits)
    return softplus, probabilities.sum(2), logits_inside, probabilities @ inside.mT


def _softplus_and_sigmoid(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over points of softplus `(I, Q)`, and sigmoid `(I, Q, P)`, of logits `(I, Q, P)`, which are overwritten.

    softplus(x) is max(x, 0) − log σ(|x|). The logarithms of up to 64 values from [½, 1] add up to that of their
    product: few are left to be taken, which on the CPU would be most of matching.
    """
    probabilities = logits.sigmoid()
    positive = logits.relu_().sum(2)
    larger = torch.sub(probabilities, 0.5, out=logits).abs_().add_(0.5)  # σ(|x|)
    products = larger.unflatten(2, (-1, math.gcd(logits.shape[2], 64))).prod(3)
    return positive - products.log_().sum(2), probabilities

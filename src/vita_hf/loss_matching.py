"""Hungarian matching of queries to ground-truth targets, by the cost of classes and of masks at random points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .configuration_vita import VitaConfig
from .loss_points import mask_values_at_points, values_at_points
from .loss_targets import Targets

Pairs = list[tuple[np.ndarray, np.ndarray]]
"""For each item the indices of its matched queries, ascending, and of their targets."""


class MaskPointSums(NamedTuple):
    """Sums over points of the mask logits x and the target masks t of `I` items, in float32.

    Items have up to `M` targets; what stands in the places of missing ones has no meaning.

    Attributes:
        softplus, sigmoid: sums of softplus(x) and σ(x), `(I, Q)`.
        logits_inside, sigmoid_inside: sums of x·t and σ(x)·t, `(I, Q, M)`.
        areas: sums of t, `(I, M)`.
    """

    softplus: Tensor
    sigmoid: Tensor
    logits_inside: Tensor
    sigmoid_inside: Tensor
    areas: Tensor


@dataclass
class Matches:
    """Matched queries and targets of all items, one after another, as `R` pairs on the targets' device.

    Attributes:
        items, queries: `(R,)` int64, the matched queries.
        targets: `(R,)` int64, rows of the `Targets`.
        positions: `(R,)` int64, position of each pair within its item.
        counts: number of pairs of each item.
    """

    items: Tensor
    queries: Tensor
    targets: Tensor
    positions: Tensor
    counts: list[int]

    @classmethod
    def from_pairs(cls, pairs: Pairs, targets: Targets) -> "Matches":
        """Join the pairs of all items. Item `i` has the targets of item `i % len(targets)`."""
        counts = [len(queries) for queries, _ in pairs]
        offsets = targets.offsets()
        columns = (
            np.repeat(np.arange(len(pairs)), counts),
            np.concatenate([queries for queries, _ in pairs]),
            np.concatenate([rows + offsets[item % len(targets)] for item, (_, rows) in enumerate(pairs)]),
            np.concatenate([np.arange(count) for count in counts]),
        )
        return cls(*torch.from_numpy(np.stack(columns)).to(targets.labels.device), counts)

    def select(self, values: Tensor) -> Tensor:
        """Rows of `(I, Q, …)` that belong to the matched queries, `(R, …)`."""
        return values[self.items, self.queries]


def sum_at_points(logits: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum over points, all fields of [`MaskPointSums`] but the areas.

    Args:
        logits: `(I, Q, P)`, overwritten.
        inside: values of the target masks `(I, M, P)`.
    """
    logits_inside = logits @ inside.mT
    probabilities = logits.sigmoid()
    # softplus(x) = max(x, 0) − log σ(|x|). The logarithms of up to 64 values from [½, 1] add up to the logarithm of
    # their product; one logarithm for each point would be most of the matching's time on a CPU.
    softplus = logits.relu_().sum(2)
    larger = torch.sub(probabilities, 0.5, out=logits).abs_().add_(0.5)  # σ(|x|)
    products = larger.unflatten(2, (-1, math.gcd(logits.shape[2], 64))).prod(3)
    softplus -= products.log_().sum(2)
    return softplus, probabilities.sum(2), logits_inside, probabilities @ inside.mT


@torch.no_grad()
def sum_masks_at_points(masks: Tensor, size: tuple[int, int], points: Tensor, targets: Targets) -> MaskPointSums:
    """Sum predicted and target masks over each item's points in all its frames.

    Args:
        masks: `(I, T, h·w, Q)` float32 logits of each item's queries.
        size: `(h, w)`.
        points: `(I, P, 2)` float32 in [0, 1], x first; the same in every frame of an item.
        targets: of the `I` items.
    """
    repeats = torch.tensor(targets.counts, device=points.device)
    target_points = points.repeat_interleave(repeats, 0, output_size=len(targets.masks))
    frames, areas = [], []
    for frame in range(masks.shape[1]):
        logits = values_at_points(masks[:, frame].mT.unflatten(2, size), points)
        inside = mask_values_at_points(targets.masks[:, frame], target_points)
        inside = pad_sequence(inside.split(targets.counts), batch_first=True)  # (I, M, P)
        frames.append(sum_at_points(logits, inside))
        areas.append(inside.sum(2))
    softplus, sigmoid, logits_inside, sigmoid_inside = (torch.stack(sums).sum(0) for sums in zip(*frames))
    return MaskPointSums(softplus, sigmoid, logits_inside, sigmoid_inside, torch.stack(areas).sum(0))


def matching_costs(
    config: VitaConfig, class_logits: Tensor, sums: MaskPointSums, num_points: int, targets: Targets
) -> list[np.ndarray]:
    """Cost of assigning each target to each query, `(Q, N)` float32 for every item.

    Args:
        class_logits: `(I, Q, K+1)`.
        sums: over the items' points.
        num_points: number of points of an item in all its frames.
        targets: of the `I` items.
    """
    labels = pad_sequence(targets.labels.split(targets.counts), batch_first=True)  # (I, M)
    labels = labels[:, None].expand(-1, class_logits.shape[1], -1)
    class_cost = -class_logits.float().softmax(-1).gather(2, labels)
    # Binary cross-entropy is softplus(x) − x·t.
    mask_cost = (sums.softplus[:, :, None] - sums.logits_inside) / num_points
    dice_cost = 1 - (2 * sums.sigmoid_inside + 1) / (sums.sigmoid[:, :, None] + sums.areas[:, None] + 1)
    costs = config.mask_weight * mask_cost + config.class_weight * class_cost + config.dice_weight * dice_cost
    return [cost[:, :count] for cost, count in zip(costs.cpu().numpy(), targets.counts)]


def assign(costs: Sequence[np.ndarray], name: str, first_item: int = 0) -> Pairs:
    """Find the cheapest assignment of each `(Q, N)` cost matrix (Hungarian algorithm).

    Args:
        name: what the items belong to, for messages.
        first_item: number of the first item, for messages.

    Raises:
        ValueError: if a cost is not finite.
    """
    pairs = []
    for item, cost in enumerate(costs, first_item):
        if not np.isfinite(cost).all():
            raise ValueError(
                f"{name}, item {item}: the matching cost of {cost.shape[0]} queries and {cost.shape[1]} instances is "
                "not finite. The network's outputs hold NaN or infinity: lower the learning rate, clip gradients, or "
                "check the inputs and the weights."
            )
        pairs.append(linear_sum_assignment(cost))
    return pairs

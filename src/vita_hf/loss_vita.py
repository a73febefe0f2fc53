"""Set losses of VITA: Mask2Former's for the detector, the same over time for the video part, and the similarity loss.

No mask is predicted with gradient unless its query was matched: matching looks at masks without gradient, some items
(frames, or videos as one frame-decoder layer sees them) at a time, and only the matched queries' masks are predicted
again. The terms and their weights are the reference's (`vita_criterion.py`, `criterion.py` of sukjunhwang/VITA).

Every term is a sum over the batch divided by a number that depends on the targets alone, see `loss_normalizers`. The
reference divides cross-entropy and similarity by each process's own number and lets DDP average the quotients; here
the numbers are summed over processes first, as one process with all clips would count them. With one process both are
the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .configuration_vita import VitaConfig
from .ops import point_samples
from .ops.mask_matching import MaskPointSums, mask_point_sums
from .ops.point_samples import mask_point_values, point_logits

Matches = list[tuple[np.ndarray, np.ndarray]]


def sample_matching_points(items: int, num_points: int, device: torch.device) -> Tensor:
    """Points that the matcher compares each item's masks at: `(items, num_points, 2)` float32 in [0, 1], x first."""
    return torch.rand(items, num_points, 2, device=device, dtype=torch.float32)


@torch.no_grad()
def sample_uncertain_points(
    logits: Tensor, num_points: int, oversample_ratio: float, importance_sample_ratio: float
) -> Tensor:
    """Points that the mask losses look at: mostly those where the prediction is least certain (PointRend).

    Args:
        logits: `(R, 1, H, W)` mask logits.
        num_points: how many points each mask gets.
        oversample_ratio: how many times more are drawn to choose the uncertain ones from.
        importance_sample_ratio: share of the points that are chosen; the rest is uniform.

    Returns:
        `(R, num_points, 2)` in [0, 1], x first.
    """
    masks = logits.shape[0]
    candidates = torch.rand(masks, int(num_points * oversample_ratio), 2, device=logits.device)
    uncertain = int(importance_sample_ratio * num_points)
    size = max(1, point_samples.chunk_elements(logits.device) // candidates.shape[1])
    points = []
    for some, among in zip(logits.split(size), candidates.split(size)):
        certainty = point_logits(some, among).abs_()
        chosen = certainty.topk(uncertain, dim=1, largest=False, sorted=False).indices
        points.append(among.gather(1, chosen[..., None].expand(-1, -1, 2)))
    points = torch.cat(points)
    if uncertain < num_points:
        points = torch.cat((points, torch.rand(masks, num_points - uncertain, 2, device=logits.device)), 1)
    return points


@dataclass
class Targets:
    """Ground truth of some items (frames, or clips), all their instances in one list.

    Attributes:
        labels: `(N,)` int64.
        masks: `(N, T, H, W)` bool.
        ids: `(N,)` int64, the same for the same object of a clip in all of its frames.
        counts: how many of the instances belong to each item.
    """

    labels: Tensor
    masks: Tensor
    ids: Tensor
    counts: list[int]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, items: slice) -> "Targets":
        offsets = self.offsets()
        here = slice(offsets[items.start], offsets[min(items.stop, len(self))])
        return Targets(self.labels[here], self.masks[here], self.ids[here], self.counts[items])

    def offsets(self) -> list[int]:
        """Where each item's instances begin, and the end."""
        return np.cumsum([0, *self.counts]).tolist()


def find_instances(masks: Tensor, counts: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Which instances are where: those with a mask that is not empty.

    Args:
        masks: `(N, T, H, W)` bool, those of all videos one after another.
        counts: how many belong to each video.

    Returns:
        Each instance's number among those of its video that are in any frame `(N,)`; the instances of each clip; and
        those of each frame, in the order (video, frame), as indices into `(N · T,)`.
    """
    length = masks.shape[1]
    seen = masks.flatten(2).any(-1).cpu().numpy()  # (N, T): the only wait for the device
    ids, in_clips, in_frames, first = np.zeros(len(seen), dtype=np.int64), [], [], 0
    for count in counts:
        instances = first + np.flatnonzero(seen[first : first + count].any(1))
        ids[instances] = np.arange(len(instances))
        in_clips.append(instances)
        in_frames += [instances[seen[instances, frame]] * length + frame for frame in range(length)]
        first += count
    return ids, in_clips, in_frames


def prepare_targets(mask_labels: Sequence[Tensor], class_labels: Sequence[Tensor]) -> tuple[Targets, Targets]:
    """Clip targets, one a video, and frame targets, one a frame in the order (video, frame).

    A frame's targets are the instances whose mask is not empty there; instances with no mask at all are dropped.
    """
    masks, labels = torch.cat(list(mask_labels)) != 0, torch.cat(list(class_labels))
    ids, in_clips, in_frames = find_instances(masks, [len(labels) for labels in class_labels])
    ids = torch.from_numpy(ids).to(masks.device)

    def targets(masks: Tensor, items: list[np.ndarray], per_instance: int) -> Targets:
        index = torch.from_numpy(np.concatenate(items)).to(masks.device)
        instances = index // per_instance
        return Targets(labels[instances], masks[index], ids[instances], [len(item) for item in items])

    return targets(masks, in_clips, 1), targets(masks.flatten(0, 1)[:, None], in_frames, masks.shape[1])


def loss_normalizers(
    config: VitaConfig, clip_counts: Sequence[int], frame_counts: Sequence[int], layers: int, device: torch.device
) -> dict[str, Tensor]:
    """What each loss term is divided by, counted on these targets only (before `reduce_loss_normalizers`).

    Args:
        clip_counts, frame_counts: instances of each clip and of each frame, see `prepare_targets`.
        layers: how many frame-decoder layers the video part sees (`num_last_layers` in training).
        device: for the result.

    Returns:
        Scalar float32 tensors: `frame_masks` and `video_masks` (target masks; the clips' counted once a layer),
        `frame_classes` and `video_classes` (class weights summed over all queries), `similarity_pairs` (ordered pairs
        of matched queries of the same video and layer).
    """

    def class_weight(counts: Sequence[int], queries: int, no_object_weight: float) -> float:
        matched = sum(min(count, queries) for count in counts)
        return matched + no_object_weight * (queries * len(counts) - matched)

    per_clip = len(frame_counts) // len(clip_counts)
    pairs = 0
    for clip, count in enumerate(clip_counts):
        in_frames = sum(min(n, config.num_queries) for n in frame_counts[clip * per_clip : (clip + 1) * per_clip])
        pairs += (in_frames + min(count, config.num_video_queries)) ** 2
    numbers = {
        "frame_masks": sum(frame_counts),
        "frame_classes": class_weight(frame_counts, config.num_queries, config.no_object_weight),
        "video_masks": sum(clip_counts) * layers,
        "video_classes": class_weight(clip_counts, config.num_video_queries, config.video_no_object_weight) * layers,
        "similarity_pairs": pairs * layers,
    }
    return dict(zip(numbers, torch.tensor(list(numbers.values()), dtype=torch.float32, device=device)))


def reduce_loss_normalizers(normalizers: dict[str, Tensor], micro_batches: int = 1) -> dict[str, Tensor]:
    """Sum over processes and divide by the number of shares the gradient is averaged over.

    Args:
        normalizers: from `loss_normalizers`, summed over the micro-batches of one optimiser step.
        micro_batches: how many of them; whoever averages the micro-batches' losses undoes this division.

    Returns:
        Divisors for `forward(loss_normalizers=…)`. Averaged over processes (as DDP does) and micro-batches, the losses
        then equal those of one batch that holds everything.
    """
    values = torch.stack(list(normalizers.values()))
    processes = 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        processes = torch.distributed.get_world_size()
    reduced = dict(zip(normalizers, values))
    for name in ("frame_masks", "video_masks"):
        reduced[name] = reduced[name].clamp(min=1)
    reduced["similarity_pairs"] = reduced["similarity_pairs"] + 1e-6
    return {name: value / (processes * micro_batches) for name, value in reduced.items()}


def count_loss_normalizers(
    config: VitaConfig, mask_labels: Sequence[Tensor], class_labels: Sequence[Tensor]
) -> dict[str, Tensor]:
    """`loss_normalizers` of one training micro-batch, from the labels as `forward` takes them."""
    masks = torch.cat(list(mask_labels)) != 0
    _, in_clips, in_frames = find_instances(masks, [len(labels) for labels in class_labels])
    counts = [len(instances) for instances in in_clips], [len(instances) for instances in in_frames]
    return loss_normalizers(config, *counts, config.num_last_layers, masks.device)


def matching_costs(
    class_logits: Tensor, sums: MaskPointSums, num_points: int, targets: Targets, config: VitaConfig
) -> list[np.ndarray]:
    """Cost `(Q, N)` of giving each target to each query, for every item, in float32.

    Args:
        class_logits: `(I, Q, K+1)`.
        sums: over points of the items' masks and targets.
        num_points: how many points, those of all frames.
        targets: of the items.
    """
    item, _ = _places(targets.counts, class_logits.device)
    # Binary cross-entropy is softplus(x) − x·target.
    mask_cost = (sums.softplus[item] - sums.logits_inside) / num_points
    dice_cost = 1 - (2 * sums.sigmoid_inside + 1) / (sums.sigmoid[item] + sums.areas[:, None] + 1)
    class_cost = -class_logits.float().softmax(-1)[item, :, targets.labels]
    costs = config.mask_weight * mask_cost + config.class_weight * class_cost + config.dice_weight * dice_cost
    return [cost.T for cost in np.split(costs.cpu().numpy(), targets.offsets()[1:-1])]


def _places(counts: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """For lists of these lengths, one after another: each element's list, and its position in it."""
    lists = np.repeat(np.arange(len(counts)), counts)
    positions = np.arange(len(lists)) - np.repeat(np.cumsum(counts) - counts, counts)
    lists, positions = torch.from_numpy(np.stack((lists, positions))).to(device)
    return lists, positions


def assign(costs: list[np.ndarray], what: str, first: int = 0) -> Matches:
    """Hungarian matching of each `(Q, N)` cost matrix: (query indices, target indices), queries ascending.

    Args:
        what, first: for messages, what the items belong to, and the number of the first one there.
    """
    matches = []
    for item, cost in enumerate(costs, first):
        if not np.isfinite(cost).all():
            raise ValueError(
                f"{what}, item {item}: the matching cost of {cost.shape[0]} queries and {cost.shape[1]} instances is "
                "not finite. The network's outputs hold NaN or infinity: lower the learning rate, clip gradients, or "
                "check the inputs and the weights."
            )
        matches.append(linear_sum_assignment(cost))
    return matches


@dataclass
class Matched:
    """Matches of all items in one list of `R`, on the device.

    Attributes:
        items, queries: `(R,)`, the matched queries.
        instances: `(R,)`, indices into the targets' list.
        places: `(R,)`, each match's position among those of its item.
        most: the largest number of matches of an item.
    """

    items: Tensor
    queries: Tensor
    instances: Tensor
    places: Tensor
    most: int

    @classmethod
    def of(cls, matches: Matches, targets: Targets) -> "Matched":
        """Item `i` has the targets of item `i % len(targets)`."""
        counts = [len(queries) for queries, _ in matches]
        device, offsets = targets.labels.device, targets.offsets()
        instances = np.concatenate([found + offsets[item % len(targets)] for item, (_, found) in enumerate(matches)])
        queries = np.concatenate([found for found, _ in matches])
        queries, instances = torch.from_numpy(np.stack((queries, instances))).to(device)
        items, places = _places(counts, device)
        return cls(items, queries, instances, places, max(counts))


class SetCriterion:
    """Classification and mask losses of one set of predictions against their targets.

    Args:
        features: `(G, T, Cm, H/4, W/4)` mask features; item `i` uses `features[i % G]`.
        targets: of `G` items; item `i` has those of `i % G`.
        no_object_weight: weight of the last class.
        class_divisor, mask_divisor: scalars.
        name: for messages.
    """

    def __init__(
        self,
        config: VitaConfig,
        features: Tensor,
        targets: Targets,
        no_object_weight: float,
        class_divisor: Tensor,
        mask_divisor: Tensor,
        name: str,
    ):
        self.config = config
        self.size = features.shape[-2:]
        self.features = features.flatten(3)
        self.targets = targets
        self.no_object_weight = no_object_weight
        self.class_divisor = class_divisor
        self.mask_divisor = mask_divisor
        self.name = name

    def predict_masks(self, embeddings: Tensor, features: Tensor) -> Tensor:
        """`(…, R, Cm)` and features `(…, Cm, H/4·W/4)` → `(…, H/4·W/4, R)` float32 logits.

        Pixels come first so that the gradient of the features has the layout of the convolution that they come from.
        """
        return (features.mT @ embeddings.to(features.dtype).mT).float()

    @torch.no_grad()
    def match(self, class_logits: Tensor, mask_embeddings: Tensor) -> tuple[Matches, Tensor]:
        """`(I, Q, K+1)` and `(I, Q, Cm)` → matches of every item, and the matched masks `(R, T, H/4, W/4)`."""
        items, queries = class_logits.shape[:2]
        device, maps = class_logits.device, self.features
        points = sample_matching_points(items, self.config.train_num_points, device)
        matches, matched_masks = [], []
        # Some items at a time, all with features that lie next to one another.
        numbers = queries * maps.shape[1] * max(maps.shape[-1], points.shape[1])
        size = max(1, point_samples.chunk_elements(device) // numbers)
        for start in range(0, items, len(maps)):
            for first in range(0, len(maps), size):
                here, those = slice(start + first, start + min(first + size, len(maps))), slice(first, first + size)
                targets = self.targets[those]
                masks = self.predict_masks(mask_embeddings[here][:, None], maps[those])  # (I, T, H/4·W/4, Q)
                with torch.autocast(device.type, enabled=False):
                    sums = mask_point_sums(masks, tuple(self.size), points[here], targets.masks, targets.counts)
                    num_points = maps.shape[1] * points.shape[1]
                    costs = matching_costs(class_logits[here], sums, num_points, targets, self.config)
                found = assign(costs, self.name, here.start)
                chosen = Matched.of(found, targets)
                matches += found
                matched_masks.append(masks[chosen.items, :, :, chosen.queries])
        return matches, torch.cat(matched_masks).unflatten(-1, self.size)

    def class_loss(self, class_logits: Tensor, matched: Matched) -> Tensor:
        no_object = class_logits.shape[-1] - 1
        wanted = torch.full(class_logits.shape[:2], no_object, dtype=torch.int64, device=class_logits.device)
        wanted[matched.items, matched.queries] = self.targets.labels[matched.instances]
        weights = class_logits.new_ones(no_object + 1, dtype=torch.float32)
        weights[no_object] = self.no_object_weight
        return F.cross_entropy(class_logits.float().flatten(0, 1), wanted.flatten(), weights, reduction="sum")

    def matched_masks(self, mask_embeddings: Sequence[Tensor], matched: Sequence[Matched]) -> Sequence[Tensor]:
        """Mask logits `(R, T, H/4, W/4)` of some predictions' matched queries, item after item."""
        items, groups, most = len(mask_embeddings[0]), len(self.features), max(found.most for found in matched)
        # One product for all, with as many rows for each item as the one with most matches has: each product's gradient
        # of the features is as large as they are, however few its rows.
        item = torch.cat([found.items + number * items for number, found in enumerate(matched)])
        place = torch.cat([found.places for found in matched])
        chosen = torch.cat([of[found.items, found.queries] for of, found in zip(mask_embeddings, matched)])
        rows = chosen.new_zeros(len(matched) * items, most, chosen.shape[-1]).index_put((item, place), chosen)
        rows = rows.unflatten(0, (-1, groups)).transpose(0, 1)  # (G, items of all predictions / G, most, Cm)
        masks = self.predict_masks(rows.flatten(1, 2)[:, None], self.features)  # (G, T, H/4·W/4, …)
        masks = masks[item % groups, :, :, item // groups * most + place].unflatten(-1, self.size)
        return masks.split([len(found.items) for found in matched])

    def loss_points(self, masks: Tensor) -> Tensor:
        """Where matched masks `(R, T, H/4, W/4)` are compared with their targets: `(R·T, P, 2)`."""
        return sample_uncertain_points(
            masks.flatten(0, 1)[:, None],
            self.config.train_num_points,
            self.config.oversample_ratio,
            self.config.importance_sample_ratio,
        )

    def mask_losses(self, masks: Tensor, matched: Matched, points: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the matched masks of cross-entropy and dice; a mask's points in all its frames count as one.

        Args:
            masks: `(R, T, H/4, W/4)`.
            points: from `loss_points`.
        """
        with torch.no_grad():
            inside = mask_point_values(self.targets.masks[matched.instances].flatten(0, 1), points)
            inside = inside.view(len(masks), masks.shape[1] * points.shape[1])
        logits = point_logits(masks.flatten(0, 1)[:, None], points).view(inside.shape)
        point_loss = F.binary_cross_entropy_with_logits(logits, inside, reduction="none").mean(1).sum()
        if len(masks) == 0:
            return logits.sum(), logits.sum()
        probabilities = logits.sigmoid()
        overlap = 2 * (probabilities * inside).sum(1)
        dice = 1 - (overlap + 1) / (probabilities.sum(1) + inside.sum(1) + 1)
        return point_loss, dice.sum()

    def __call__(
        self, class_logits: Sequence[Tensor], mask_embeddings: Sequence[Tensor], deep_supervision: bool, matched: int
    ) -> tuple[dict[str, Tensor], list[Matches]]:
        """Losses of a chain of predictions, the last first (the order in which the reference draws its points).

        Args:
            class_logits, mask_embeddings: of each prediction, `(I, Q, K+1)` and `(I, Q, Cm)`.
            deep_supervision: whether the earlier predictions count.
            matched: how many of the last predictions' matches are wanted.

        Returns:
            The weighted terms, `{"ce": …, "mask": …, "dice": …, "ce_0": …}`, and the matches of the last `matched`
            predictions, in their order.
        """
        last = len(class_logits) - 1
        matches: dict[int, Matches] = {}
        supervised: dict[int, tuple[Matched, Tensor]] = {}
        for index in (last, *range(last)):
            counts = deep_supervision or index == last
            if counts or index > last - matched:
                matches[index], masks = self.match(class_logits[index], mask_embeddings[index])
            if counts:
                supervised[index] = Matched.of(matches[index], self.targets), self.loss_points(masks)
        predicted = self.matched_masks(
            [mask_embeddings[index] for index in supervised], [m for m, _ in supervised.values()]
        )
        losses: dict[str, Tensor] = {}
        for (index, (found, points)), of_prediction in zip(supervised.items(), predicted):
            # What is computed at the points is soon computed again; all predictions' would be more than the layers
            # that they come from keep for the backward pass.
            point_loss, dice_loss = checkpoint(
                self.mask_losses, of_prediction, found, points, use_reentrant=False, preserve_rng_state=False
            )
            terms = {
                "ce": self.config.class_weight * self.class_loss(class_logits[index], found) / self.class_divisor,
                "mask": self.config.mask_weight * point_loss / self.mask_divisor,
                "dice": self.config.dice_weight * dice_loss / self.mask_divisor,
            }
            losses.update({name + ("" if index == last else f"_{index}"): term for name, term in terms.items()})
        return losses, [matches[index] for index in range(last + 1 - matched, last + 1)]


def similarity_loss(
    frame_embeddings: Tensor,
    video_embeddings: Tensor,
    frame_matches: Sequence[Matches],
    video_matches: Matches,
    clips: Targets,
    frames: Targets,
) -> Tensor:
    """Sum over pairs of matched queries of the same video and layer: are they the same object?

    Args:
        frame_embeddings: `(L, B, T, fQ, C)`; video_embeddings: `(L, B, vQ, C)`.
        frame_matches: of the last `L` detector predictions, each with `B·T` items.
        video_matches: of the last video prediction, `L·B` items.
    """
    layers, batch, length, frame_queries = frame_embeddings.shape[:4]
    embeddings = torch.cat((video_embeddings.flatten(0, 2), frame_embeddings.flatten(0, 3)))
    ids = torch.cat((clips.ids, frames.ids))
    of_clips, of_frames = clips.offsets(), frames.offsets()
    rows, instances, counts = [], [], []  # of `embeddings` and `ids`; of matches of each video and layer
    for group in range(layers * batch):
        layer, video = divmod(group, batch)
        found = [(video_matches[group], group * video_embeddings.shape[2], of_clips[video])]
        for frame in range(video * length, (video + 1) * length):
            row = layers * batch * video_embeddings.shape[2] + (layer * batch * length + frame) * frame_queries
            found.append((frame_matches[layer][frame], row, of_clips[-1] + of_frames[frame]))
        rows += [first + queries for (queries, _), first, _ in found]
        instances += [first + matched for (_, matched), _, first in found]
        counts.append(sum(len(queries) for (queries, _), _, _ in found))
    device, most = embeddings.device, max(counts)
    rows, instances = torch.from_numpy(np.stack((np.concatenate(rows), np.concatenate(instances)))).to(device)
    place = _places(counts, device)
    embedded = embeddings.new_zeros(len(counts), most, embeddings.shape[-1]).index_put(place, embeddings[rows]).float()
    objects = ids.new_full((len(counts), most), -1).index_put(place, ids[instances])
    same = (objects[:, :, None] == objects[:, None]).float()
    real = (objects >= 0).float()
    return F.binary_cross_entropy_with_logits(
        embedded @ embedded.mT, same, real[:, :, None] * real[:, None], reduction="sum"
    )


class VitaLoss:
    """All of VITA's losses on one batch of labels.

    Args:
        config: weights, point counts, query counts.
        mask_labels: for each video `(N, T, H, W)`, non-zero inside.
        class_labels: for each video `(N,)` integers in `[0, K)`.
        pixel_values_videos: `(B, T, 3, H, W)`, for its shape and device.
        frame_mask: must not pad: training clips of a batch have the same length.

    Raises:
        ValueError: labels that do not fit the video or the classes, or a padded clip.
    """

    def __init__(
        self,
        config: VitaConfig,
        mask_labels: Sequence[Tensor],
        class_labels: Sequence[Tensor],
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None,
    ):
        batch, frames, _, height, width = pixel_values_videos.shape
        if len(mask_labels) != batch or len(class_labels) != batch:
            raise ValueError(
                f"mask_labels and class_labels: expected one entry for each of {batch} videos, got "
                f"{len(mask_labels)} and {len(class_labels)}"
            )
        if frame_mask is not None and not bool(frame_mask.all()):
            raise ValueError("frame_mask: clips with labels must all have the same number of frames, without padding")
        for video, (masks, labels) in enumerate(zip(mask_labels, class_labels)):
            if tuple(masks.shape) != (len(labels), frames, height, width) or labels.dim() != 1:
                raise ValueError(
                    f"mask_labels[{video}]: expected (N, T, H, W) = ({len(labels)}, {frames}, {height}, {width}) for "
                    f"class_labels[{video}] of shape {tuple(labels.shape)}, got {tuple(masks.shape)}"
                )
        counts = [len(labels) for labels in class_labels]
        in_range = (0 <= (every := torch.cat(list(class_labels)))) & (every < config.num_labels)
        for video, (labels, good) in enumerate(zip(class_labels, in_range.cpu().split(counts))):
            if labels.is_floating_point() or not good.all():
                raise ValueError(
                    f"class_labels[{video}]: expected integers in [0, {config.num_labels}), got {labels.tolist()}"
                )
        self.config = config
        device = pixel_values_videos.device
        self.clips, self.frames = prepare_targets(
            [masks.to(device) for masks in mask_labels], [labels.to(device).long() for labels in class_labels]
        )

    def __call__(
        self,
        frame_class_logits: Sequence[Tensor],
        frame_mask_embeddings: Sequence[Tensor],
        frame_mask_features: Tensor,
        video_class_logits: Sequence[Tensor],
        video_mask_embeddings: Sequence[Tensor],
        video_mask_features: Tensor,
        frame_similarity: Tensor | None,
        video_similarity: Tensor | None,
        normalizers: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """
        Args:
            frame_class_logits, frame_mask_embeddings: of each detector prediction, `(B·T, fQ, K+1)`, `(B·T, fQ, Cm)`.
            frame_mask_features: `(B·T, Cm, H/4, W/4)`.
            video_class_logits, video_mask_embeddings: of each object-decoder layer, `(L, B, vQ, K+1)` and
                `(L, B, vQ, Cm)`.
            video_mask_features: `(B, T, Cm, H/4, W/4)`.
            frame_similarity, video_similarity: `(L, B, T, fQ, C)` and `(L, B, vQ, C)`, or `None` without these heads.
            normalizers: see `reduce_loss_normalizers`; by default counted on this batch and reduced.

        Returns:
            The weighted terms, named as [`VitaForVideoInstanceSegmentationOutput`] says.
        """
        config = self.config
        layers = video_class_logits[0].shape[0]
        if normalizers is None:
            counts = self.clips.counts, self.frames.counts
            counted = loss_normalizers(config, *counts, layers, self.clips.labels.device)
            normalizers = reduce_loss_normalizers(counted)
        frame_criterion = SetCriterion(
            config,
            frame_mask_features[:, None],
            self.frames,
            config.no_object_weight,
            normalizers["frame_classes"],
            normalizers["frame_masks"],
            "detector",
        )
        video_criterion = SetCriterion(
            config,
            video_mask_features,
            self.clips,
            config.video_no_object_weight,
            normalizers["video_classes"],
            normalizers["video_masks"],
            "video part",
        )
        with_similarity = frame_similarity is not None
        frame_losses, frame_matches = frame_criterion(
            frame_class_logits, frame_mask_embeddings, config.use_auxiliary_loss, layers if with_similarity else 1
        )
        video_losses, (video_matches,) = video_criterion(
            [logits.flatten(0, 1) for logits in video_class_logits],
            [embeddings.flatten(0, 1) for embeddings in video_mask_embeddings],
            config.use_video_auxiliary_loss,
            1,
        )
        losses = {f"loss_{name}": term for name, term in frame_losses.items()}
        losses.update({f"loss_vita_{name}": term for name, term in video_losses.items()})
        if with_similarity:
            pairs = similarity_loss(
                frame_similarity, video_similarity, frame_matches, video_matches, self.clips, self.frames
            )
            losses["loss_vita_sim"] = config.similarity_weight * pairs / normalizers["similarity_pairs"]
        return losses

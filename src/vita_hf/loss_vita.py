"""Losses of VITA: Mask2Former's set losses for frames and for clips, and the similarity loss between the two.

An "item" is one set of queries to be matched: those of a frame, or those of a clip as one frame-decoder layer sees it.
The `L` layers of `B` clips give `L·B` items, of which item `i` has the targets and the mask features of clip `i % B`.

No mask is predicted with gradient unless its query was matched: the matching compares all masks without gradient, a few
items at a time, and only the matched queries' masks are predicted again. The terms and their weights are the
reference's (`vita_criterion.py`, `criterion.py` of sukjunhwang/VITA).

Each term is a sum over the batch divided by a number that depends on the targets alone, see `count_loss_normalizers`.
The reference divides cross-entropy and similarity by each process's own number and lets DDP average the quotients. Here
the numbers are summed over processes first, as a single process with all clips would count them. With one process both
are the same.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import loss_points
from .configuration_vita import VitaConfig
from .loss_matching import Matches, Pairs, assign, matching_costs, sum_masks_at_points
from .loss_points import mask_values_at_points, values_at_points
from .loss_targets import (
    Targets,
    count_loss_normalizers,
    find_instance_presence,
    prepare_targets,
    reduce_loss_normalizers,
)


def sample_matching_points(items: int, num_points: int, device: torch.device) -> Tensor:
    """Draw the points at which the matching compares masks, `(items, num_points, 2)` float32 in [0, 1], x first."""
    return torch.rand(items, num_points, 2, device=device, dtype=torch.float32)


@torch.no_grad()
def sample_uncertain_points(
    logits: Tensor, num_points: int, oversample_ratio: float, importance_sample_ratio: float
) -> Tensor:
    """Draw the points of the mask losses, mostly where the prediction is least certain (PointRend).

    Args:
        logits: `(R, 1, H, W)` mask logits.
        num_points: number of points of each mask.
        oversample_ratio: number of candidates drawn for each point.
        importance_sample_ratio: share of the points that are the least certain candidates; the others are uniform.

    Returns:
        `(R, num_points, 2)` float32 in [0, 1], x first.
    """
    masks = logits.shape[0]
    candidates = torch.rand(masks, int(num_points * oversample_ratio), 2, device=logits.device, dtype=torch.float32)
    num_uncertain = int(importance_sample_ratio * num_points)
    size = max(1, loss_points.chunk_elements(logits.device) // candidates.shape[1])
    chosen = []
    for logit_chunk, candidate_chunk in zip(logits.split(size), candidates.split(size)):
        certainty = values_at_points(logit_chunk, candidate_chunk)[:, 0].abs_()
        indices = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
        chosen.append(candidate_chunk.gather(1, indices[..., None].expand(-1, -1, 2)))
    points = torch.cat(chosen)
    if num_uncertain < num_points:
        uniform = torch.rand(masks, num_points - num_uncertain, 2, device=logits.device, dtype=torch.float32)
        points = torch.cat((points, uniform), 1)
    return points


@dataclass
class SetPredictions:
    """What a set of queries predicts for `I` items after each layer, from the first to the last.

    Attributes:
        class_logits: of each layer `(I, Q, K+1)`.
        mask_embeddings: of each layer `(I, Q, Cm)`.
        mask_features: `(G, T, Cm, H/4, W/4)`; item `i` has those of `i % G`.
        similarity_embeddings: of video queries `(L, B, vQ, C)`, of frame queries `(L, B, T, fQ, C)`; `None` without
            similarity heads.
    """

    class_logits: Sequence[Tensor]
    mask_embeddings: Sequence[Tensor]
    mask_features: Tensor
    similarity_embeddings: Tensor | None = None


class SetCriterion:
    """Classification and mask losses of a set of queries.

    Args:
        mask_features: `(G, T, Cm, H/4, W/4)`; item `i` has those of `i % G`.
        targets: of `G` frames or clips, likewise.
        no_object_weight: weight of the last class.
        class_normalizer, mask_normalizer: scalars that the losses are divided by.
        name: what the items belong to, for messages.
    """

    def __init__(
        self,
        config: VitaConfig,
        mask_features: Tensor,
        targets: Targets,
        no_object_weight: float,
        class_normalizer: Tensor,
        mask_normalizer: Tensor,
        name: str,
    ):
        self.config = config
        height, width = mask_features.shape[-2:]
        self.size = height, width
        self.mask_features = mask_features.flatten(3)
        self.targets = targets
        self.no_object_weight = no_object_weight
        self.class_normalizer = class_normalizer
        self.mask_normalizer = mask_normalizer
        self.name = name

    def __call__(
        self,
        class_logits: Sequence[Tensor],
        mask_embeddings: Sequence[Tensor],
        deep_supervision: bool,
        num_returned_matches: int = 1,
    ) -> tuple[dict[str, Tensor], list[Matches]]:
        """Compute the losses of each layer's predictions.

        The last layer comes first: this is the order in which the reference draws its points.

        Args:
            class_logits, mask_embeddings: of each layer, `(I, Q, K+1)` and `(I, Q, Cm)`.
            deep_supervision: whether all layers are supervised, or only the last.
            num_returned_matches: number of layers, counted from the last, whose matches are returned.

        Returns:
            The weighted terms, `{"ce": …, "mask": …, "dice": …, "ce_0": …}`, and the matches in the layers' order.
        """
        last = len(class_logits) - 1
        matches: dict[int, Matches] = {}
        points: dict[int, Tensor] = {}  # of the supervised layers
        for layer in (last, *range(last)):
            supervised = deep_supervision or layer == last
            if supervised or layer > last - num_returned_matches:
                matches[layer], masks = self.match(class_logits[layer], mask_embeddings[layer])
            if supervised:
                points[layer] = self.sample_loss_points(masks)
        all_masks = self.predict_matched_masks(
            [mask_embeddings[layer] for layer in points], [matches[layer] for layer in points]
        )
        losses: dict[str, Tensor] = {}
        for layer, masks in zip(points, all_masks):
            # Values at points are cheap to compute again. Kept for the backward pass, they would take more memory than
            # all decoder layers.
            mask_loss, dice_loss = checkpoint(
                self.mask_losses, masks, matches[layer], points[layer], use_reentrant=False, preserve_rng_state=False
            )
            suffix = "" if layer == last else f"_{layer}"
            class_loss = self.class_loss(class_logits[layer], matches[layer])
            losses[f"ce{suffix}"] = self.config.class_weight * class_loss / self.class_normalizer
            losses[f"mask{suffix}"] = self.config.mask_weight * mask_loss / self.mask_normalizer
            losses[f"dice{suffix}"] = self.config.dice_weight * dice_loss / self.mask_normalizer
        return losses, [matches[layer] for layer in range(last + 1 - num_returned_matches, last + 1)]

    def predict_masks(self, embeddings: Tensor, mask_features: Tensor) -> Tensor:
        """`(…, R, Cm)` embeddings and `(…, Cm, H/4·W/4)` features to `(…, H/4·W/4, R)` float32 logits.

        Pixels come first so that the gradient of the features has the memory layout of the convolution behind them.
        """
        return (mask_features.mT @ embeddings.to(mask_features.dtype).mT).float()

    @torch.no_grad()
    def match(self, class_logits: Tensor, mask_embeddings: Tensor) -> tuple[Matches, Tensor]:
        """Match the queries of one layer, and predict the matched queries' masks without gradient.

        Args:
            class_logits, mask_embeddings: `(I, Q, K+1)` and `(I, Q, Cm)`.

        Returns:
            The matches, and the masks `(R, T, H/4, W/4)`.
        """
        items, queries = class_logits.shape[:2]
        groups, frames, _, pixels = self.mask_features.shape
        device, num_points = class_logits.device, self.config.train_num_points
        points = sample_matching_points(items, num_points, device)
        pairs: Pairs = []
        matched_masks = []
        size = max(1, loss_points.chunk_elements(device) // (queries * frames * max(pixels, num_points)))
        for first, start in itertools.product(range(0, items, groups), range(0, groups, size)):
            group = slice(start, min(start + size, groups))  # its mask features lie next to one another
            item = slice(first + group.start, first + group.stop)
            targets = self.targets[group]
            masks = self.predict_masks(mask_embeddings[item][:, None], self.mask_features[group])
            with torch.autocast(device.type, enabled=False):
                sums = sum_masks_at_points(masks, self.size, points[item], targets)
                costs = matching_costs(self.config, class_logits[item], sums, frames * num_points, targets)
            chunk_pairs = assign(costs, self.name, item.start)
            chunk_matches = Matches.from_pairs(chunk_pairs, targets)
            pairs += chunk_pairs
            matched_masks.append(masks[chunk_matches.items, :, :, chunk_matches.queries])
        return Matches.from_pairs(pairs, self.targets), torch.cat(matched_masks).unflatten(-1, self.size)

    def predict_matched_masks(self, mask_embeddings: Sequence[Tensor], matches: Sequence[Matches]) -> Sequence[Tensor]:
        """Predict the masks of each layer's matched queries, `(R, T, H/4, W/4)` with gradient."""
        items, groups = len(mask_embeddings[0]), len(self.mask_features)
        # A single product for all layers, because each product has a gradient as large as the features, however few its
        # rows. Every item gets as many rows as the item with most matches.
        rows_per_item = max(max(layer.counts) for layer in matches)
        item = torch.cat([layer.items + index * items for index, layer in enumerate(matches)])
        position = torch.cat([layer.positions for layer in matches])
        embeddings = torch.cat([layer.select(values) for values, layer in zip(mask_embeddings, matches)])
        rows = embeddings.new_zeros(len(matches) * items, rows_per_item, embeddings.shape[-1])
        rows = rows.index_put((item, position), embeddings)
        rows = rows.unflatten(0, (-1, groups)).transpose(0, 1)  # (G, items of all layers / G, rows_per_item, Cm)
        masks = self.predict_masks(rows.flatten(1, 2)[:, None], self.mask_features)  # (G, T, H/4·W/4, …)
        masks = masks[item % groups, :, :, item // groups * rows_per_item + position].unflatten(-1, self.size)
        return masks.split([sum(layer.counts) for layer in matches])

    def sample_loss_points(self, masks: Tensor) -> Tensor:
        """Draw the points at which matched masks `(R, T, H/4, W/4)` meet their targets, `(R·T, P, 2)`."""
        return sample_uncertain_points(
            masks.flatten(0, 1)[:, None],
            self.config.train_num_points,
            self.config.oversample_ratio,
            self.config.importance_sample_ratio,
        )

    def class_loss(self, class_logits: Tensor, matches: Matches) -> Tensor:
        """Sum over all queries of the weighted cross-entropy; unmatched queries belong to the no-object class."""
        no_object = class_logits.shape[-1] - 1
        labels = torch.full(class_logits.shape[:2], no_object, dtype=torch.int64, device=class_logits.device)
        labels[matches.items, matches.queries] = self.targets.labels[matches.targets]
        weights = class_logits.new_ones(no_object + 1, dtype=torch.float32)
        weights[no_object] = self.no_object_weight
        return F.cross_entropy(class_logits.float().flatten(0, 1), labels.flatten(), weights, reduction="sum")

    def mask_losses(self, masks: Tensor, matches: Matches, points: Tensor) -> tuple[Tensor, Tensor]:
        """Sum cross-entropy and dice over the matched masks. The points of all frames of a mask count as one set.

        Args:
            masks: `(R, T, H/4, W/4)`.
            points: from `sample_loss_points`.
        """
        shape = len(masks), masks.shape[1] * points.shape[1]
        with torch.no_grad():
            inside = mask_values_at_points(self.targets.masks[matches.targets].flatten(0, 1), points).view(shape)
        logits = values_at_points(masks.flatten(0, 1)[:, None], points).view(shape)
        mask_loss = F.binary_cross_entropy_with_logits(logits, inside, reduction="none").mean(1)
        probabilities = logits.sigmoid()
        overlap = 2 * (probabilities * inside).sum(1)
        dice_loss = 1 - (overlap + 1) / (probabilities.sum(1) + inside.sum(1) + 1)
        return mask_loss.sum(), dice_loss.sum()


def similarity_loss(
    frame_embeddings: Tensor,
    video_embeddings: Tensor,
    frame_matches: Sequence[Matches],
    video_matches: Matches,
    clips: Targets,
    frames: Targets,
) -> Tensor:
    """Sum a cross-entropy over all pairs of matched queries of a clip and layer: are both the same object?

    Args:
        frame_embeddings: `(L, B, T, fQ, C)`.
        video_embeddings: `(L, B, vQ, C)`.
        frame_matches: of the last `L` detector layers, each with `B·T` items.
        video_matches: of the last object-decoder layer, with `L·B` items.
        clips, frames: targets of the video and of the frame queries.
    """
    length = frame_embeddings.shape[2]
    video_rows = video_matches.select(video_embeddings.flatten(0, 1)).split(video_matches.counts)
    video_ids = clips.ids[video_matches.targets].split(video_matches.counts)
    frame_rows, frame_ids = [], []
    for embeddings, matches in zip(frame_embeddings, frame_matches):
        counts = [sum(matches.counts[first : first + length]) for first in range(0, len(matches.counts), length)]
        frame_rows += matches.select(embeddings.flatten(0, 1)).split(counts)
        frame_ids += frames.ids[matches.targets].split(counts)
    losses = []
    for clip_rows, clip_frame_rows, clip_ids, clip_frame_ids in zip(video_rows, frame_rows, video_ids, frame_ids):
        rows, ids = torch.cat((clip_rows, clip_frame_rows)).float(), torch.cat((clip_ids, clip_frame_ids))
        same = (ids[:, None] == ids).float()
        losses.append(F.binary_cross_entropy_with_logits(rows @ rows.mT, same, reduction="sum"))
    return torch.stack(losses).sum()


class VitaLoss:
    """All of VITA's losses on one batch of labels.

    Args:
        config: weights, numbers of points and of queries.
        mask_labels: for each clip `(N, T, H, W)`, non-zero inside the instance.
        class_labels: for each clip `(N,)` integers in `[0, K)`.
        pixel_values_videos: `(B, T, 3, H, W)`, for its shape and device.
        frame_mask: `(B, T)`, all True: the training clips of a batch have the same length.
        instance_presence: for each clip `(N, T)` bool, True where the mask is not empty; by default computed.

    Raises:
        ValueError: if the labels do not fit the videos or the classes, or a clip is padded.
    """

    def __init__(
        self,
        config: VitaConfig,
        mask_labels: Sequence[Tensor],
        class_labels: Sequence[Tensor],
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None = None,
        instance_presence: Sequence[Tensor] | None = None,
    ):
        check_labels(config, mask_labels, class_labels, pixel_values_videos, frame_mask, instance_presence)
        device = pixel_values_videos.device
        mask_labels = [masks.to(device) for masks in mask_labels]
        class_labels = [labels.to(device).long() for labels in class_labels]
        if instance_presence is None:
            instance_presence = find_instance_presence(mask_labels)
        self.config = config
        self.device = device
        self.instance_presence = [presence.cpu() for presence in instance_presence]
        self.clips, self.frames = prepare_targets(mask_labels, class_labels, self.instance_presence)

    def __call__(
        self, frame: SetPredictions, video: SetPredictions, normalizers: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Compute the weighted terms; [`VitaForVideoInstanceSegmentationOutput`] lists their names.

        Args:
            frame: predictions of the frame queries, `B·T` items.
            video: predictions of the video queries, `L·B` items: each frame-decoder layer's frame queries are clips of
                their own.
            normalizers: see `reduce_loss_normalizers`; by default counted on this batch and reduced.
        """
        config = self.config
        layers = len(video.class_logits[0]) // len(self.clips)
        if normalizers is None:
            counted = count_loss_normalizers(config, self.instance_presence, layers)
            normalizers = reduce_loss_normalizers(counted, self.device)
        frame_criterion = SetCriterion(
            config,
            frame.mask_features,
            self.frames,
            config.no_object_weight,
            normalizers["frame_classes"],
            normalizers["frame_masks"],
            "detector",
        )
        video_criterion = SetCriterion(
            config,
            video.mask_features,
            self.clips,
            config.video_no_object_weight,
            normalizers["video_classes"],
            normalizers["video_masks"],
            "video part",
        )
        with_similarity = frame.similarity_embeddings is not None and video.similarity_embeddings is not None
        frame_losses, frame_matches = frame_criterion(
            frame.class_logits, frame.mask_embeddings, config.use_auxiliary_loss, layers if with_similarity else 1
        )
        video_losses, (video_matches,) = video_criterion(
            video.class_logits, video.mask_embeddings, config.use_video_auxiliary_loss
        )
        losses = {f"loss_{name}": term for name, term in frame_losses.items()}
        losses |= {f"loss_vita_{name}": term for name, term in video_losses.items()}
        if with_similarity:
            pair_loss = similarity_loss(
                frame.similarity_embeddings,
                video.similarity_embeddings,
                frame_matches,
                video_matches,
                self.clips,
                self.frames,
            )
            losses["loss_vita_sim"] = config.similarity_weight * pair_loss / normalizers["similarity_pairs"]
        return losses


def check_labels(
    config: VitaConfig,
    mask_labels: Sequence[Tensor],
    class_labels: Sequence[Tensor],
    pixel_values_videos: Tensor,
    frame_mask: Tensor | None,
    instance_presence: Sequence[Tensor] | None,
) -> None:
    """Raise a `ValueError` if the labels do not fit the videos or the classes; see [`VitaLoss`]."""
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
        labels = labels.cpu()
        if labels.is_floating_point() or ((labels < 0) | (labels >= config.num_labels)).any():
            raise ValueError(
                f"class_labels[{video}]: expected integers in [0, {config.num_labels}), got {labels.tolist()}"
            )
    if instance_presence is not None:
        shapes = [tuple(presence.shape) for presence in instance_presence]
        expected = [tuple(masks.shape[:2]) for masks in mask_labels]
        if shapes != expected:
            raise ValueError(f"instance_presence: expected (N, T) = {expected} for the mask_labels, got {shapes}")


__all__ = [
    "SetCriterion",
    "VitaLoss",
    "count_loss_normalizers",
    "reduce_loss_normalizers",
    "sample_matching_points",
    "sample_uncertain_points",
    "similarity_loss",
]

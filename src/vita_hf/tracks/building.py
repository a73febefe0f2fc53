"""Build tracks from a model's outputs: choose predictions, compute their masks chunk by chunk, and score them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.rle import encode_masks
from .instances import VideoInstances


def choose_predictions(
    class_logits: Tensor,
    top_k: int,
    threshold: float,
    one_label_per_query: bool,
    classes: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Choose the `top_k` best predictions whose class probability is at least `threshold`.

    Args:
        class_logits: (vQ, K + 1); the last class is "no object".
        one_label_per_query: True takes each query once, with its best class; False ranks all pairs of a query and a
            class, so a query may appear several times.
        classes: Choose only predictions of these classes; by default of all.

    Returns:
        Class probabilities (float32), labels and queries (int64): three CPU tensors (k,), best first.
    """
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    if one_label_per_query:
        scores, labels = probabilities.max(-1)
        queries = torch.arange(len(scores), device=scores.device)
    else:
        scores = probabilities.flatten()
        pairs = torch.arange(len(scores), device=scores.device)
        queries, labels = pairs // probabilities.shape[1], pairs % probabilities.shape[1]
    if classes is not None:
        kept = torch.isin(labels, torch.tensor(classes, dtype=torch.int64, device=labels.device))
        scores, labels, queries = scores[kept], labels[kept], queries[kept]
    scores, order = scores.topk(min(top_k, len(scores)))
    order = order[scores >= threshold]
    return scores[: len(order)].cpu(), labels[order].cpu(), queries[order].cpu()


class VideoInstancesBuilder:
    """
    Build the [`VideoInstances`] of one video whose mask features arrive in chunks of frames.

    Only the chosen queries' masks are computed, and only one chunk of them is held as floats. A track's score is its
    class probability times the mean mask probability of its pixels (those above 0.5) over the whole video. The result
    does not depend on the size of the chunks.

    Args:
        class_logits: (vQ, K + 1); the last class is "no object".
        mask_embeddings: (vQ, C). Masks are computed on their device, in float32.
        frame_size: (h, w) of the frames before padding; by default four times the size of the mask features.
        target_size: (h, w) of the masks; by default `frame_size`.
        top_k: The maximum number of tracks.
        threshold: Minimum score of a track.
        one_label_per_query: Whether a query gives at most one track; see `choose_predictions`.
        output_format: "masks" (bool tensors) or "rle" (compressed RLE).
        classes: Indices of the classes to report; by default all.
        id2label: Names of the classes, passed on to the result.
        name: The video's name in messages.

    Raises:
        ValueError: if `output_format` is unknown, `top_k` is not positive, or a number is not finite.
    """

    def __init__(
        self,
        class_logits: Tensor,
        mask_embeddings: Tensor,
        *,
        frame_size: tuple[int, int] | None = None,
        target_size: tuple[int, int] | None = None,
        top_k: int = 10,
        threshold: float = 0.0,
        one_label_per_query: bool = False,
        output_format: Literal["masks", "rle"] = "masks",
        classes: Sequence[int] | None = None,
        id2label: Mapping[int, str] | None = None,
        name: str = "the video",
    ):
        if output_format not in ("masks", "rle"):
            raise ValueError(f"output_format must be 'masks' or 'rle', got {output_format!r}")
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.frame_size = frame_size
        self.target_size = target_size
        self.threshold = threshold
        self.output_format = output_format
        self.id2label = id2label
        self.name = name
        self._check_finite(class_logits, "class logits")
        self._check_finite(mask_embeddings, "mask embeddings")
        # A mask score is at most 1: what is already below the threshold needs no masks.
        self.class_scores, self.labels, self.queries = choose_predictions(
            class_logits, top_k, threshold, one_label_per_query, classes
        )
        # A query with several labels has one mask.
        unique, self.rows = self.queries.unique(return_inverse=True)
        self.embeddings = mask_embeddings[unique.to(mask_embeddings.device)].float()

        self.num_frames = 0
        self.score_sums = torch.zeros(len(unique), dtype=torch.float64, device="cpu")
        self.pixel_counts = torch.zeros(len(unique), dtype=torch.int64, device="cpu")
        self.mask_chunks: list[Tensor] = []
        self.counts: list[list[str]] = [[] for _ in unique]  # only the RLE's strings: a dict would need more memory

    @torch.no_grad()
    def add_frames(self, mask_features: Tensor) -> None:
        """
        Compute the masks of the next frames.

        Args:
            mask_features: (t, C, H/4, W/4), of any float type and on any device.

        Raises:
            ValueError: if `frame_size` exceeds (H, W), or a mask logit is not finite.
        """
        padded_size = (4 * mask_features.shape[-2], 4 * mask_features.shape[-1])
        if self.frame_size is None:
            self.frame_size = padded_size
        height, width = self.frame_size
        if height > padded_size[0] or width > padded_size[1]:
            raise ValueError(
                f"frame size {height}×{width} exceeds the network's input {padded_size[0]}×{padded_size[1]}"
            )
        if self.target_size is None:
            self.target_size = self.frame_size
        self.num_frames += len(mask_features)
        if not len(self.embeddings) or not len(mask_features):
            return

        mask_features = mask_features.to(self.embeddings)
        logits = (self.embeddings @ mask_features.flatten(2)).unflatten(2, mask_features.shape[2:])  # (t, q, h, w)
        self._check_finite(logits, "mask logits")
        logits = F.interpolate(logits, size=padded_size, mode="bilinear", align_corners=False)[..., :height, :width]
        probabilities = logits.sigmoid()
        inside = probabilities > 0.5
        # Summed frame by frame first, so that the sums do not depend on the chunks.
        self.score_sums += probabilities.mul_(inside).sum((2, 3)).cpu().double().sum(0)
        self.pixel_counts += inside.sum((0, 2, 3)).cpu()
        del probabilities, inside
        if self.target_size != self.frame_size:
            logits = F.interpolate(logits, size=self.target_size, mode="bilinear", align_corners=False)
        masks = logits > 0
        if self.output_format == "masks":
            self.mask_chunks.append(masks.cpu())
        else:
            rles = encode_masks(masks.flatten(0, 1))
            for row, track in enumerate(self.counts):
                track.extend(sys.intern(rle["counts"]) for rle in rles[row :: len(self.counts)])

    def _check_finite(self, numbers: Tensor, what: str) -> None:
        if not numbers.isfinite().all():
            raise ValueError(
                f"{self.name}: the {what} are not all finite; either the inputs hold NaN or infinity, the model's "
                "weights are damaged, or its dtype cannot hold its activations"
            )

    def build(self) -> VideoInstances:
        """
        Score the tracks and return them, best first.

        Raises:
            ValueError: if no frames were added.
        """
        if self.target_size is None or not self.num_frames:
            raise ValueError("no frames were processed")
        mask_scores = (self.score_sums / (self.pixel_counts.float() + 1e-6)).float()
        scores, order = (self.class_scores * mask_scores[self.rows]).sort(descending=True, stable=True)
        order = order[scores >= self.threshold]
        rows = self.rows[order]
        if self.output_format == "rle":
            size = list(self.target_size)
            masks = [[{"size": size, "counts": counts} for counts in self.counts[row]] for row in rows]
        elif self.mask_chunks:
            masks = torch.cat([chunk[:, rows].transpose(0, 1) for chunk in self.mask_chunks], dim=1)
        else:
            masks = torch.zeros((0, self.num_frames, *self.target_size), dtype=torch.bool, device="cpu")
        return VideoInstances(
            scores=scores[: len(order)],
            labels=self.labels[order],
            masks=masks,
            query_indices=self.queries[order],
            size=self.target_size,
            num_frames=self.num_frames,
            id2label=self.id2label,
        )


__all__ = ["VideoInstancesBuilder", "choose_predictions"]

"""Time and peak memory of a training step against a baseline that predicts every mask with gradient.

The baseline has the same weights and works like the original and transformers' Mask2Former: it predicts every query's
mask at full (1/4) resolution after every layer of the masked decoder and of the object decoder, with gradient, and
derives attention masks, matching and losses from them. The "transformers-like baseline" also materialises all attention
weights, and matches with transformers' own cost functions. Deformable attention is transformers' `grid_sample`
implementation ("transformers"), or one of this package's ("pytorch", and "cpp" or "cuda").

All variants draw the same points and must have equal losses. Their steps take turns in one process; the table shows
medians. Peak memory is counted above what is allocated before the step: weights, gradients and AdamW's state, and for
"after the pixel decoder" its outputs. On the CPU it is measured in new processes.

    python benchmarks/benchmark_training.py                       # R50, 3 frames of 288×512, on the CPU
    python benchmarks/benchmark_training.py --device cuda --frames 6 --size 384 640 --rounds 10 --json out.json
"""

import argparse
import copy
import functools
import gc
import json
import math
import os
import statistics
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers.models.mask2former import modeling_mask2former

from measuring import device_name, in_new_process, now, peak_memory
from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation, loss_vita, modeling_detector
from vita_hf.commands.evaluate import markdown_table
from vita_hf.loss_matching import Matches, assign, matching_costs, sum_masks_at_points
from vita_hf.loss_targets import Targets
from vita_hf.loss_vita import SetCriterion, sample_matching_points
from vita_hf.modeling_detector import VitaMaskedDecoder

LIKE_TRANSFORMERS = "transformers-like baseline"
AFTER, WHOLE = "after the pixel decoder", "whole step"


class Variant(NamedTuple):
    part: str
    model: str
    attention: str  # the deformable attention, which is not used after the pixel decoder

    def __str__(self) -> str:
        return f"{self.model} {self.attention}"


def variants(device: torch.device) -> list[Variant]:
    ours = ("pytorch", "cuda" if device.type == "cuda" else "cpp")
    return [
        *(Variant(AFTER, model, "pytorch") for model in ("baseline", LIKE_TRANSFORMERS, "vita-hf")),
        Variant(WHOLE, LIKE_TRANSFORMERS, "transformers"),
        *(Variant(WHOLE, "baseline", attention) for attention in ("transformers", *ours)),
        *(Variant(WHOLE, "vita-hf", attention) for attention in ours),
    ]


class DenseMaskedDecoder(VitaMaskedDecoder):
    """Predicts all masks at full resolution, with gradient, and down-samples them for the attention."""

    def attention_mask(self, query_states: Tensor, level_mask_features: Tensor) -> Tensor:
        maps, mask_features = self.inputs  # set by a hook on the transformer module
        with torch.enable_grad():
            masks = self.mask_predictor.mask_embedder(query_states) @ mask_features.flatten(2)
            masks = masks.unflatten(-1, mask_features.shape[-2:])
        self.masks.append(masks)
        size = next(m.shape[-2:] for m in maps if m.shape[-2:].numel() == level_mask_features.shape[-1])
        small = torch.nn.functional.interpolate(masks.detach(), size, mode="bilinear", align_corners=False)
        inside = small.flatten(2) >= 0
        return (inside | ~inside.any(-1, keepdim=True))[:, None]

    def keep_inputs(self, module: torch.nn.Module, args: tuple) -> None:
        self.inputs, self.masks = args, []


class DenseCriterion(SetCriterion):
    """Works on all queries' masks where its parent works on mask embeddings."""

    def __init__(self, decoder: DenseMaskedDecoder, *args):
        super().__init__(*args)
        self.predicted = decoder.masks if self.name == "detector" else []

    def all_masks(self, embeddings: Tensor) -> Tensor:  # (I, Q, Cm) → (I, T, Q, H/4, W/4)
        embeddings = embeddings.unflatten(0, (-1, len(self.mask_features)))
        masks = torch.einsum("lbqc,btcs->lbtqs", embeddings, self.mask_features)
        return masks.flatten(0, 1).unflatten(-1, self.size)

    def __call__(self, class_logits, mask_embeddings, *args):
        masks = [masks[:, None] for masks in self.predicted]
        masks += [self.all_masks(embeddings) for embeddings in mask_embeddings[len(masks) :]]
        return super().__call__(class_logits, masks, *args)

    @torch.no_grad()
    def match(self, class_logits: Tensor, masks: Tensor) -> tuple[Matches, Tensor]:
        points = sample_matching_points(len(masks), self.config.train_num_points, masks.device)
        costs = []
        for item in range(len(masks)):
            row = item % len(self.targets)
            targets = self.targets[row : row + 1]
            costs.append(self.costs(class_logits[item], masks[item], targets, points[item : item + 1]))
        matches = Matches.from_pairs(assign(costs, self.name), self.targets)
        (matched_masks,) = self.predict_matched_masks([masks], [matches])
        return matches, matched_masks

    def costs(self, class_logits: Tensor, masks: Tensor, targets: Targets, points: Tensor) -> np.ndarray:
        """Costs of one item from `(Q, K+1)`, `(T, Q, H/4, W/4)` and `(1, P, 2)`."""
        sums = sum_masks_at_points(masks.flatten(2).mT[None], self.size, points, targets)
        (costs,) = matching_costs(self.config, class_logits[None], sums, len(masks) * points.shape[1], targets)
        return costs

    def predict_matched_masks(self, masks: Sequence[Tensor], matches: Sequence[Matches]) -> list[Tensor]:
        return [layer.select(all_masks.transpose(1, 2)) for all_masks, layer in zip(masks, matches)]


class TransformersCriterion(DenseCriterion):
    """Matches like transformers and the original: samples on a grid per query, and computes both signs' entropies."""

    def costs(self, class_logits: Tensor, masks: Tensor, targets: Targets, points: Tensor) -> np.ndarray:
        inputs, inside = (  # (Q, T·P) and (N, T·P)
            modeling_mask2former.sample_point(maps, points.expand(len(maps), -1, -1), align_corners=False).flatten(1)
            for maps in (masks.transpose(0, 1), targets.masks.float())
        )
        costs = self.config.mask_weight * modeling_mask2former.pair_wise_sigmoid_cross_entropy_loss(inputs, inside)
        costs -= self.config.class_weight * class_logits.softmax(-1)[:, targets.labels]
        costs += self.config.dice_weight * modeling_mask2former.pair_wise_dice_loss(inputs, inside)
        return costs.cpu().numpy()


def grid_sample_attention(value, spatial_shapes, reference_points, offsets, logits) -> Tensor:
    """Deformable attention of transformers, called with the arguments of this package's."""
    sizes = torch.tensor([(w, h) for h, w in spatial_shapes], dtype=value.dtype, device=value.device)
    locations = reference_points[:, :, None, :, None] + offsets / sizes[:, None]
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    return modeling_mask2former.multi_scale_deformable_attention(value, spatial_shapes, locations, weights)


class DropGradient(torch.autograd.Function):
    """Identity that computes its gradient and drops it, like a network before it that uses the gradient up."""

    forward = staticmethod(lambda ctx, tensor: tensor.view_as(tensor))
    backward = staticmethod(lambda ctx, gradient: None)


class FixedOutputs(torch.nn.Module):
    """Takes the place of the backbone and the pixel decoder: returns their outputs, which ask for gradients."""

    def __init__(self, outputs: tuple):
        super().__init__()
        self.features, *self.outputs = outputs
        for tensor in (*self.outputs[:2], *self.outputs[2]):
            tensor.requires_grad_()

    def forward(self, pixel_values: Tensor) -> tuple:
        pixels, mask_features, maps = self.outputs
        drop = DropGradient.apply
        return self.features, drop(pixels), drop(mask_features), [drop(level) for level in maps]


class Step:
    """Training steps of one model on one batch. The learning rate is zero, so all steps are the same."""

    def __init__(self, args: argparse.Namespace, part: str, model: str):
        self.model, self.batch, self.optimizer = build(model).to(args.device), make_batch(args), None
        if part == WHOLE:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0)
        else:
            with torch.no_grad():
                outputs = self.model.model.pixel_level_module(self.batch["pixel_values_videos"].flatten(0, 1))
            self.model.model.pixel_level_module = FixedOutputs(outputs)

    def __call__(self) -> dict[str, float]:
        torch.manual_seed(0)
        outputs = self.model(**self.batch)
        outputs.loss.backward()
        if self.optimizer is not None:
            self.optimizer.step()
        return {name: term.item() for name, term in outputs.loss_dict.items()}

    def clear(self) -> None:
        """Zero the parameters' gradients but keep their memory; drop the masks that the step left behind."""
        self.model.zero_grad(set_to_none=False)
        self.model.model.transformer_module.decoder.masks = []


def make_batch(args: argparse.Namespace) -> dict:
    """Make a clip of noise with rectangles that move through it."""
    generator = torch.Generator().manual_seed(1)
    height, width = args.size
    masks = torch.zeros(args.instances, args.frames, height, width, dtype=torch.bool)
    for mask in masks:
        top, left, dy, dx = (torch.rand(4, generator=generator) * torch.tensor([0.5, 0.5, 0.1, 0.1])).tolist()
        for t in range(args.frames):
            y, x = int((top + t * dy) * height), int((left + t * dx) * width)
            mask[t, y : y + height // 4, x : x + width // 4] = True
    frames = torch.randn(1, args.frames, 3, height, width, generator=generator)
    labels = torch.randint(40, (args.instances,), generator=generator)
    return {
        "pixel_values_videos": frames.to(args.device),
        "mask_labels": [masks.to(args.device)],
        "class_labels": [labels.to(args.device)],
    }


def as_baseline(model: VitaForVideoInstanceSegmentation) -> VitaForVideoInstanceSegmentation:
    model = copy.deepcopy(model)
    module = model.model.transformer_module
    module.decoder.__class__ = DenseMaskedDecoder
    module.register_forward_pre_hook(module.decoder.keep_inputs)
    return model


def build(name: str) -> VitaForVideoInstanceSegmentation:
    torch.manual_seed(0)
    model = VitaForVideoInstanceSegmentation(VitaConfig(num_labels=40)).train()
    if name != "vita-hf":
        model = as_baseline(model)
    if name == LIKE_TRANSFORMERS:
        model.set_attn_implementation("eager")
    return model


@contextmanager
def installed(model: VitaForVideoInstanceSegmentation, attention: str) -> Generator[None]:
    """Use the model's criterion and the given deformable attention inside the context."""
    decoder = model.model.transformer_module.decoder
    criterion = SetCriterion
    if isinstance(decoder, DenseMaskedDecoder):
        like_transformers = model.config._attn_implementation == "eager"
        criterion = functools.partial(TransformersCriterion if like_transformers else DenseCriterion, decoder)
    kernels, operator = attention, modeling_detector.deformable_attention_from_projections
    if attention == "transformers":
        kernels, operator = "pytorch", grid_sample_attention
    with (
        mock.patch.dict(os.environ, {"VITA_HF_KERNELS": kernels}),
        mock.patch.object(modeling_detector, "deformable_attention_from_projections", operator),
        mock.patch.object(loss_vita, "SetCriterion", criterion),
    ):
        yield


def step_memory(args: argparse.Namespace, variant: Variant) -> float:
    """Return the bytes that a step needs once training is under way."""
    torch.set_num_threads(args.threads)
    gc.collect()  # of the variant before
    step = Step(args, variant.part, variant.model)
    with installed(step.model, variant.attention):
        step()  # loads libraries, allocates gradients and AdamW's state
        step.clear()
        return peak_memory(step, args.device)


def measure_memory(args: argparse.Namespace) -> dict[Variant, float]:
    """Return each variant's bytes; on the CPU medians of new processes, in turns."""
    if args.device.type == "cuda":
        return {variant: step_memory(args, variant) for variant in variants(args.device)}
    measured: dict[Variant, list[float]] = {variant: [] for variant in variants(args.device)}
    # Freed blocks go back to the system at once, so that the peak is that of the memory in use.
    with mock.patch.dict(os.environ, MALLOC_MMAP_THRESHOLD_="65536"):
        for _ in tqdm(range(args.memory_rounds), desc="memory", leave=False):
            for variant, sizes in measured.items():
                sizes.append(in_new_process(step_memory, args, variant))
    return {variant: statistics.median(sizes) for variant, sizes in measured.items()}


def measure_time(args: argparse.Namespace, part: str) -> dict[Variant, float]:
    """Return the median seconds of a part's variants, which take turns; raise if their losses differ."""
    measured: dict[Variant, list[float]] = {variant: [] for variant in variants(args.device) if variant.part == part}
    steps = {model: Step(args, part, model) for model in dict.fromkeys(variant.model for variant in measured)}
    losses = {}
    for turn in tqdm(range(args.rounds + 1), desc=part, leave=False):
        for variant, seconds in measured.items():
            step = steps[variant.model]
            with installed(step.model, variant.attention):
                start = now(args.device)
                losses[variant] = step()
                if turn > 0:  # the first is the warm-up
                    seconds.append(now(args.device) - start)
            step.clear()
        expect_equal(losses)
    return {variant: statistics.median(seconds) for variant, seconds in measured.items()}


def expect_equal(losses: dict[Variant, dict[str, float]]) -> None:
    """Raise an AssertionError if the losses of a variant differ from those of the first."""
    reference, expected = next(iter(losses.items()))
    for variant, terms in losses.items():
        assert terms.keys() == expected.keys()
        for name, term in terms.items():
            if not math.isclose(term, expected[name], rel_tol=1e-4, abs_tol=1e-7):
                raise AssertionError(f"{name}: {term} with {variant}, {expected[name]} with {reference}")


def table(seconds: dict[Variant, float], memory: dict[Variant, float]) -> str:
    """Compare the variants of one part with its baselines."""
    baselines = [variant for variant in seconds if variant.model != "vita-hf"]
    rows = []
    for variant, value in seconds.items():
        size = memory[variant]
        row = {variant.part: str(variant), "seconds": f"{value:.2f}", "MiB": f"{size / 2**20:.0f}"}
        for other in baselines:
            row[f"vs {other}"] = f"{seconds[other] / value:.2f}× as fast, {size / memory[other]:.2f}× memory"
        rows.append(row)
    return markdown_table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(288, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--instances", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, each variant once in every round")
    parser.add_argument("--memory-rounds", type=int, default=3, help="on the CPU; a GPU always counts the same bytes")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 as everywhere else, so that losses can be compared
    memory = measure_memory(args)
    seconds = [measure_time(args, part) for part in (AFTER, WHOLE)]
    print(
        f"R50, 1 clip of {args.frames} frames of {args.size[0]}×{args.size[1]}, {args.instances} instances, float32, "
        f"{device_name(args.device, args.threads)}, torch {torch.__version__}, medians of {args.rounds} rounds; "
        "losses equal"
    )
    for of_part in seconds:
        print(f"\n{table(of_part, memory)}")
    if args.json:
        times = {**seconds[0], **seconds[1]}
        rows = [{**variant._asdict(), "seconds": times[variant], "bytes": memory[variant]} for variant in times]
        args.json.write_text(json.dumps({"torch": torch.__version__, "variants": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

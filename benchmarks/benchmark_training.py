"""Time and peak memory of a training step against a baseline that predicts every mask with gradient.

The baseline has the same weights and works like the original and transformers' Mask2Former: it predicts every query's
mask at full (1/4) resolution after every layer of the masked decoder and of the object decoder, with gradient, and
derives attention masks, matching and losses from them. Both draw the same points, and the benchmark checks that their
losses are equal. The "transformers-like baseline" also materialises all attention weights, and matches with
transformers' own cost functions, like the original. Deformable attention is transformers' `grid_sample` implementation
("transformers"), or one of this package's ("pytorch", and "cpp" or "cuda").

Steps of all variants take turns in one process; the table shows medians. Peak memory is counted above what is allocated
before the step: weights, gradients and AdamW's state, and for "after the pixel decoder" its outputs. On the CPU it is
measured in fresh processes.

    python benchmarks/benchmark_training.py                       # R50, 3 frames of 288×512, on the CPU
    python benchmarks/benchmark_training.py --device cuda --frames 6 --size 384 640 --rounds 10 --json out.json
"""

import argparse
import copy
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers.models.mask2former.modeling_mask2former import (
    multi_scale_deformable_attention,
    pair_wise_dice_loss,
    pair_wise_sigmoid_cross_entropy_loss,
    sample_point,
)

from benchmark_inference import peak_memory
from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation, loss_vita, modeling_detector
from vita_hf.loss_matching import Matches, assign, matching_costs, sum_masks_at_points
from vita_hf.loss_targets import Targets
from vita_hf.loss_vita import SetCriterion, sample_matching_points
from vita_hf.modeling_detector import VitaMaskedDecoder

PARTS = {"after": "after the pixel decoder", "step": "whole step"}


class Variant(NamedTuple):
    model: str
    attention: str  # the deformable attention, which is not used after the pixel decoder

    def __str__(self) -> str:
        return f"{self.model} {self.attention}"


def variants(part: str, device: torch.device) -> list[Variant]:
    if part == "after":
        return [Variant(model, "pytorch") for model in ("baseline", "transformers-like baseline", "vita-hf")]
    ours = ("pytorch", "cuda" if device.type == "cuda" else "cpp")
    return [
        Variant("transformers-like baseline", "transformers"),
        *(Variant("baseline", attention) for attention in ("transformers", *ours)),
        *(Variant("vita-hf", attention) for attention in ours),
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
        inputs, inside = masks.transpose(0, 1), targets.masks.float()  # (Q, T, H/4, W/4), (N, T, H, W)
        inputs = sample_point(inputs, points.expand(len(inputs), -1, -1), align_corners=False).flatten(1)
        inside = sample_point(inside, points.expand(len(inside), -1, -1), align_corners=False).flatten(1)
        costs = self.config.mask_weight * pair_wise_sigmoid_cross_entropy_loss(inputs, inside)
        costs -= self.config.class_weight * class_logits.softmax(-1)[:, targets.labels]
        costs += self.config.dice_weight * pair_wise_dice_loss(inputs, inside)
        return costs.cpu().numpy()


def grid_sample_attention(value, spatial_shapes, reference_points, offsets, logits) -> Tensor:
    """Deformable attention of transformers, called with the arguments of this package's."""
    sizes = torch.tensor([(w, h) for h, w in spatial_shapes], dtype=value.dtype, device=value.device)
    locations = reference_points[:, :, None, :, None] + offsets / sizes[:, None]
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    return multi_scale_deformable_attention(value, spatial_shapes, locations, weights)


class DropGradient(torch.autograd.Function):
    """Identity that computes its gradient and drops it, like a network before it that uses the gradient up."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> None:
        return None


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

    def __init__(self, model: VitaForVideoInstanceSegmentation, batch: dict, part: str):
        self.model, self.batch = model, batch
        if part == "after":
            with torch.no_grad():
                outputs = model.model.pixel_level_module(batch["pixel_values_videos"].flatten(0, 1))
            model.model.pixel_level_module = FixedOutputs(outputs)
        self.optimizer = None if part == "after" else torch.optim.AdamW(model.parameters(), lr=0.0)

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


def labelled_batch(
    frames: int, height: int, width: int, instances: int, num_labels: int, device: torch.device | str = "cpu"
) -> dict:
    """A clip of noise with rectangles that move through it."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.zeros(instances, frames, height, width, dtype=torch.bool)
    for instance in range(instances):
        top, left, dy, dx = (torch.rand(4, generator=generator) * torch.tensor([0.5, 0.5, 0.1, 0.1])).tolist()
        for t in range(frames):
            y, x = int((top + t * dy) * height), int((left + t * dx) * width)
            masks[instance, t, y : y + height // 4, x : x + width // 4] = True
    return {
        "pixel_values_videos": torch.randn(1, frames, 3, height, width, generator=generator).to(device),
        "mask_labels": [masks.to(device)],
        "class_labels": [torch.randint(num_labels, (instances,), generator=generator).to(device)],
    }


def as_baseline(model: VitaForVideoInstanceSegmentation) -> VitaForVideoInstanceSegmentation:
    model = copy.deepcopy(model)
    module = model.model.transformer_module
    module.decoder.__class__ = DenseMaskedDecoder
    module.register_forward_pre_hook(module.decoder.keep_inputs)
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


def build(name: str) -> VitaForVideoInstanceSegmentation:
    torch.manual_seed(0)
    model = VitaForVideoInstanceSegmentation(VitaConfig(num_labels=40)).train()
    if name == "vita-hf":
        return model
    model = as_baseline(model)
    if name == "transformers-like baseline":
        model.set_attn_implementation("eager")
    return model


def measure_one_memory(args: argparse.Namespace, variant: Variant, part: str) -> int | None:
    """Bytes that a step needs once training is under way."""
    gc.collect()  # of the variant before
    model = build(variant.model).to(args.device)
    with installed(model, variant.attention):
        step = Step(model, labelled_batch(args.frames, *args.size, args.instances, 40, args.device), part)
        step()  # loads libraries, allocates gradients and AdamW's state
        step.clear()
        return peak_memory(step, args.device)


def measure_memory(args: argparse.Namespace) -> dict[str, dict[str, float | None]]:
    """Bytes of each part and variant; on the CPU medians of fresh processes, in turns."""
    runs = {part: {variant: [] for variant in variants(part, args.device)} for part in PARTS}
    if args.device.type == "cuda":
        return {part: {str(v): measure_one_memory(args, v, part) for v in of_part} for part, of_part in runs.items()}
    same = ["--frames", args.frames, "--size", *args.size, "--instances", args.instances, "--threads", args.threads]
    # Freed blocks go back to the system at once, so that the peak is that of the memory in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    for _ in tqdm(range(args.memory_rounds), desc="memory", leave=False):
        for part, of_part in runs.items():
            for variant, measured in of_part.items():
                command = [sys.executable, __file__, *map(str, same), "--only", *variant, part]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
                measured.append(json.loads(output.splitlines()[-1]))
    return {
        part: {str(v): None if None in measured else statistics.median(measured) for v, measured in of_part.items()}
        for part, of_part in runs.items()
    }


def measure_time(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median seconds of each part and variant, in turns; raises if the losses differ."""
    seconds: dict[str, dict[str, float]] = {}
    wait = functools.partial(torch.cuda.synchronize, args.device) if args.device.type == "cuda" else lambda: None
    batch = labelled_batch(args.frames, *args.size, args.instances, 40, args.device)
    for part, title in PARTS.items():
        cases = variants(part, args.device)
        steps = {name: Step(build(name).to(args.device), batch, part) for name in dict(cases)}
        measured: dict[Variant, list[float]] = {variant: [] for variant in cases}
        losses = {}
        for turn in tqdm(range(args.rounds + 1), desc=title, leave=False):
            for variant in cases:
                step = steps[variant.model]
                with installed(step.model, variant.attention):
                    wait()
                    start = time.perf_counter()
                    losses[variant] = step()
                    wait()
                    if turn > 0:  # the first is the warm-up
                        measured[variant].append(time.perf_counter() - start)
                step.clear()
            expect_equal(losses, cases[0])
        seconds[part] = {str(variant): statistics.median(values) for variant, values in measured.items()}
    return seconds


def expect_equal(losses: dict[Variant, dict[str, float]], reference: Variant) -> None:
    expected = losses[reference]
    for variant, terms in losses.items():
        assert terms.keys() == expected.keys()
        for name, term in terms.items():
            if abs(term - expected[name]) > 1e-4 * max(abs(expected[name]), 1e-3):
                raise AssertionError(f"{name}: {term} with {variant}, {expected[name]} with {reference}")


def print_table(title: str, seconds: dict[str, float], memory: dict[str, float | None]) -> None:
    baselines = [name for name in seconds if "baseline" in name]
    print(f"| {title} | seconds | MiB |" + "".join(f" vs {name} |" for name in baselines))
    print("|---|---:|---:|" + "---:|" * len(baselines))
    for name, value in seconds.items():
        size = memory[name]
        cells = [f"{value:.2f}", "–" if size is None else f"{size / 2**20:.0f}"]
        for other in baselines:
            share = "" if size is None else f", {size / memory[other]:.2f}× memory"
            cells.append(f"{seconds[other] / value:.2f}× as fast{share}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


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
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)  # one memory measurement, for fresh processes
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 as everywhere else, so that losses can be compared
    if args.only is not None:
        model, attention, part = args.only
        return print(json.dumps(measure_one_memory(args, Variant(model, attention), part)))

    memory = measure_memory(args)
    seconds = measure_time(args)
    device = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else f"CPU, {args.threads} threads"
    print(
        f"R50, 1 clip of {args.frames} frames of {args.size[0]}×{args.size[1]}, {args.instances} instances, float32, "
        f"{device}, torch {torch.__version__}, medians of {args.rounds} rounds; losses equal\n"
    )
    for part, title in PARTS.items():
        print_table(title, seconds[part], memory[part])
    if args.json:
        args.json.write_text(json.dumps({"seconds": seconds, "bytes": memory, "torch": torch.__version__}) + "\n")


if __name__ == "__main__":
    main()

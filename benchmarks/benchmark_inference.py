"""Time and peak memory of this package's detector against transformers' Mask2Former with the same weights.

Both run in one process, in turns, on the same frames. The table shows medians per frame for each stage, and their
ratios. Absolute times depend on the machine and its load; compare the ratios.

    python benchmarks/benchmark_inference.py                      # R50, 4 frames of 384×640, on the CPU
    VITA_HF_KERNELS=pytorch python benchmarks/benchmark_inference.py          # without the C++ kernel
    python benchmarks/benchmark_inference.py --device cuda --dtype bfloat16 --frames 18 --json out.json
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from measuring import device_name, now, peak_memory
from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation
from vita_hf.commands.evaluate import markdown_table
from vita_hf.recipes import load_recipe

RECIPES = {"resnet50": "coco-r50", "resnet101": "coco-r101", "swin-large": "coco-swinl"}


class StageTimer:
    """Seconds of each stage, in lists. The stages of the model are timed in every forward pass."""

    def __init__(self, model: torch.nn.Module, device: torch.device):
        self.device = device
        self.started: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        base = model.model
        stages = {"backbone": base.pixel_level_module.encoder, "pixel decoder": base.pixel_level_module.decoder}
        for stage, module in {**stages, "masked decoder": base.transformer_module}.items():
            module.register_forward_pre_hook(lambda *_, stage=stage: self.start(stage))
            module.register_forward_hook(lambda *_, stage=stage: self.stop(stage))

    def start(self, stage: str) -> None:
        self.started[stage] = now(self.device)

    def stop(self, stage: str) -> None:
        self.seconds[stage].append(now(self.device) - self.started[stage])


def build(backbone: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Build transformers' Mask2Former, and this package's model with its weights."""
    torch.manual_seed(0)
    ours = VitaConfig(backbone_config=load_recipe(RECIPES[backbone]).model["backbone_config"], num_labels=40)
    theirs = Mask2FormerConfig(backbone_config=ours.backbone_config, num_labels=40)
    models = Mask2FormerForUniversalSegmentation(theirs), VitaForVideoInstanceSegmentation(ours)
    report = models[1].load_state_dict(models[0].state_dict(), strict=False)
    assert set(report.unexpected_keys) <= {"criterion.empty_weight"}, report.unexpected_keys
    # Random weights give random masks, but what the masked decoder attends to does not change its speed.
    return models


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Return the figures of transformers and of this package: milliseconds per frame and stage, and peak memory."""
    dtype = getattr(torch, args.dtype)
    theirs, ours = (model.eval().to(args.device, dtype) for model in build(args.backbone))
    frames = torch.randn(args.frames, 3, *args.size, device=args.device, dtype=dtype)
    runs = (lambda: theirs(pixel_values=frames)), (lambda: ours.model.detect(frames))
    timers = [StageTimer(model, args.device) for model in (theirs, ours)]
    memory = [peak_memory(run, args.device) for run in runs]  # also the warm-up
    for timer in timers:
        timer.seconds.clear()
    for _ in range(args.rounds):
        for timer, run in zip(timers, runs):
            timer.start("detector")
            run()
            timer.stop("detector")
    figures = {
        f"{stage}, ms a frame": [1e3 * statistics.median(timer.seconds[stage]) / args.frames for timer in timers]
        for stage in timers[0].seconds
    }
    return {**figures, "peak memory, MiB": [size / 2**20 for size in memory]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=RECIPES, default="resnet50")
    parser.add_argument("--frames", type=int, default=4, help="frames in one batch")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, each model once in every round")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    figures = measure(args)
    device = device_name(args.device, args.threads)
    print(f"{args.backbone}, {args.frames} frames of {args.size[0]}×{args.size[1]}, {args.dtype}, {device}\n")
    rows = [
        {"": name, "transformers": f"{theirs:.1f}", "vita-hf": f"{ours:.1f}", "ratio": f"{ours / theirs:.2f}"}
        for name, (theirs, ours) in figures.items()
    ]
    print(markdown_table(rows))
    if args.json:
        settings = {name: getattr(args, name) for name in ("backbone", "frames", "size", "dtype", "rounds")}
        results = {**settings, "device": device, "torch": torch.__version__, "figures": figures}
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Time and peak memory of this package's detector against transformers' Mask2Former with the same weights.

Both run in one process, in turns, on the same frames; reported are medians per frame, split by stage, and their ratios.
Absolute times depend on the machine and on what else it does; the ratios are what to look at.

    python benchmarks/benchmark_inference.py                      # R50, 4 frames of 384×640, on the CPU
    VITA_HF_KERNELS=pytorch python benchmarks/benchmark_inference.py          # without the C++ kernel
    python benchmarks/benchmark_inference.py --device cuda --dtype bfloat16 --frames 18 --json out.json
"""

import argparse
import ctypes
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig, TimmBackboneConfig

from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation

BACKBONES = {
    "resnet50": TimmBackboneConfig(backbone="resnet50", out_indices=[1, 2, 3, 4], freeze_batch_norm_2d=True),
    "resnet101": TimmBackboneConfig(backbone="resnet101", out_indices=[1, 2, 3, 4], freeze_batch_norm_2d=True),
    "swin-large": SwinConfig(
        image_size=384,
        embed_dim=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    ),
}


class StageTimer:
    """Seconds spent in each named module, waiting for the device at both ends."""

    def __init__(self, modules: dict[str, torch.nn.Module], device: torch.device):
        self.device = device
        self.started: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for name, module in modules.items():
            module.register_forward_pre_hook(lambda *_, name=name: self.start(name))
            module.register_forward_hook(lambda *_, name=name: self.stop(name))

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def start(self, name: str) -> None:
        self.started[name] = self.now()

    def stop(self, name: str) -> None:
        self.seconds[name].append(self.now() - self.started[name])


def peak_memory(run, device: torch.device) -> int | None:
    """Bytes that `run` needs at its peak above what is there before; `None` where this can't be measured."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        run()
        return None

    def resident(key: str) -> int:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(key))

    ctypes.CDLL("libc.so.6").malloc_trim(0)  # so that freed memory of the last run is not counted as there
    reset.write_text("5")  # sets the peak back to the present
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def build(backbone: str, device: torch.device, dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    theirs = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=BACKBONES[backbone], num_labels=40))
    ours = VitaForVideoInstanceSegmentation(VitaConfig(backbone_config=BACKBONES[backbone], num_labels=40))
    report = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert set(report.unexpected_keys) <= {"criterion.empty_weight"}, report.unexpected_keys
    # Random weights have random masks; what the masked decoder attends to has no influence on its speed.
    return theirs.eval().to(device, dtype), ours.eval().to(device, dtype)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet50")
    parser.add_argument("--frames", type=int, default=4, help="frames in one batch")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, each model once in every round")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    theirs, ours = build(args.backbone, device, getattr(torch, args.dtype))
    frames = torch.randn(args.frames, 3, *args.size, device=device, dtype=getattr(torch, args.dtype))
    runs = {"transformers": lambda: theirs(pixel_values=frames), "vita-hf": lambda: ours.model.detect(frames)}
    stages = {"backbone": "encoder", "pixel decoder": "decoder"}
    timers = {}
    for name, base in (("transformers", theirs.model), ("vita-hf", ours.model)):
        modules = {stage: getattr(base.pixel_level_module, part) for stage, part in stages.items()}
        timers[name] = StageTimer({**modules, "masked decoder": base.transformer_module}, device)

    memory = {name: peak_memory(run, device) for name, run in runs.items()}  # also the warm-up
    for timer in timers.values():
        timer.seconds.clear()
    for _ in range(args.rounds):
        for name, run in runs.items():
            timers[name].start("detector")
            run()
            timers[name].stop("detector")

    results = {
        "backbone": args.backbone,
        "frames": args.frames,
        "size": list(args.size),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {args.threads} threads",
        "dtype": args.dtype,
        "torch": torch.__version__,
        "rounds": args.rounds,
        "milliseconds_per_frame": {
            name: {k: 1e3 * statistics.median(v) / args.frames for k, v in timer.seconds.items()}
            for name, timer in timers.items()
        },
        "peak_bytes": memory,
    }
    times = results["milliseconds_per_frame"]
    print(
        f"{args.backbone}, {args.frames} frames of {args.size[0]}×{args.size[1]}, {args.dtype}, {results['device']}\n"
    )
    print("| | transformers | vita-hf | ratio |\n|---|---|---|---|")
    for stage in ("backbone", "pixel decoder", "masked decoder", "detector"):
        a, b = times["transformers"][stage], times["vita-hf"][stage]
        print(f"| {stage}, ms a frame | {a:.1f} | {b:.1f} | {b / a:.2f} |")
    if None not in memory.values():
        a, b = (memory[name] / 2**20 for name in ("transformers", "vita-hf"))
        print(f"| peak memory, MiB | {a:.0f} | {b:.0f} | {b / a:.2f} |")
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

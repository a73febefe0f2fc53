"""Time and peak memory of this package's detector against transformers' Mask2Former with the same weights.

Both run in one process, in turns, on the same frames. The table shows medians per frame for each stage, and their
ratios. Absolute times depend on the machine and its load; compare the ratios.

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


STAGES = ("backbone", "pixel decoder", "masked decoder")


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
    """Bytes that `run` allocates at its peak above what is allocated before; `None` where this can't be measured."""
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

    ctypes.CDLL("libc.so.6").malloc_trim(0)  # gives freed memory of the last run back to the system
    reset.write_text("5")  # resets the peak to the current size
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def build(backbone: str, device: torch.device, dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    theirs = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=BACKBONES[backbone], num_labels=40))
    ours = VitaForVideoInstanceSegmentation(VitaConfig(backbone_config=BACKBONES[backbone], num_labels=40))
    report = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert set(report.unexpected_keys) <= {"criterion.empty_weight"}, report.unexpected_keys
    # Random weights give random masks, but what the masked decoder attends to does not change its speed.
    return theirs.eval().to(device, dtype), ours.eval().to(device, dtype)


@torch.no_grad()
def measure(
    args: argparse.Namespace, device: torch.device
) -> tuple[dict[str, dict[str, float]], dict[str, int | None]]:
    """Milliseconds per frame and stage, and peak bytes, of both models."""
    theirs, ours = build(args.backbone, device, getattr(torch, args.dtype))
    frames = torch.randn(args.frames, 3, *args.size, device=device, dtype=getattr(torch, args.dtype))
    runs = {"transformers": lambda: theirs(pixel_values=frames), "vita-hf": lambda: ours.model.detect(frames)}
    timers = {}
    for name, base in (("transformers", theirs.model), ("vita-hf", ours.model)):
        level = base.pixel_level_module
        stages = (level.encoder, level.decoder, base.transformer_module)
        timers[name] = StageTimer(dict(zip(STAGES, stages)), device)

    memory = {name: peak_memory(run, device) for name, run in runs.items()}  # also the warm-up
    for timer in timers.values():
        timer.seconds.clear()
    for _ in range(args.rounds):
        for name, run in runs.items():
            timers[name].start("detector")
            run()
            timers[name].stop("detector")
    milliseconds = {
        name: {stage: 1e3 * statistics.median(values) / args.frames for stage, values in timer.seconds.items()}
        for name, timer in timers.items()
    }
    return milliseconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet50")
    parser.add_argument("--frames", type=int, default=4, help="frames in one batch")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, each model once in every round")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    milliseconds, memory = measure(args)
    device = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else f"CPU, {args.threads} threads"
    print(f"{args.backbone}, {args.frames} frames of {args.size[0]}×{args.size[1]}, {args.dtype}, {device}\n")
    print("| | transformers | vita-hf | ratio |\n|---|---|---|---|")
    for stage in (*STAGES, "detector"):
        a, b = milliseconds["transformers"][stage], milliseconds["vita-hf"][stage]
        print(f"| {stage}, ms a frame | {a:.1f} | {b:.1f} | {b / a:.2f} |")
    if None not in memory.values():
        a, b = (memory[name] / 2**20 for name in ("transformers", "vita-hf"))
        print(f"| peak memory, MiB | {a:.0f} | {b:.0f} | {b / a:.2f} |")
    if args.json:
        settings = {name: getattr(args, name) for name in ("backbone", "frames", "size", "dtype", "rounds")}
        settings |= {"device": device, "torch": torch.__version__}
        results = {**settings, "milliseconds_per_frame": milliseconds, "peak_bytes": memory}
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

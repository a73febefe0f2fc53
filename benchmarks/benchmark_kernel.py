r"""Time and error of every implementation of deformable attention, forward and forward with backward.

Implementations take turns in every round; reported are medians, ratios to transformers' `grid_sample` implementation,
errors against float64, and achieved bytes a second if each tensor crossed memory once. Absolute times depend on the
machine and on what else it does; the ratios are what to look at.

    python benchmarks/benchmark_kernel.py                                    # CPU, 2 threads
    python benchmarks/benchmark_kernel.py --device cuda --dtypes float32 bfloat16 --json cuda.json \
        --original transformers-4.49.0-py3-none-any.whl                   # from `pip download --no-deps`

On CUDA, `deformops` takes part where it is installed, and the original kernel where its wheel is given.
"""

import argparse
import ctypes
import functools
import json
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.models.mask2former import modeling_mask2former

from vita_hf.ops import available_backends, deformable_attention_from_projections, multi_scale_deformable_attention
from vita_hf.ops import build as kernel_build

VITA_LEVELS = ((12, 20), (24, 40), (48, 80))  # of 384×640 frames
DETR_LEVELS = ((100, 134), (50, 67), (25, 34), (13, 17))


@dataclass
class Case:
    name: str
    levels: tuple[tuple[int, int], ...]
    batch: int
    queries: int | None = None  # one for each pixel where not given
    heads: int = 8
    dim: int = 32
    points: int = 4

    def inputs(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """Offsets of a few pixels around each query's own place, as in a trained encoder."""
        length = sum(h * w for h, w in self.levels)
        queries = self.queries or length
        shape = (self.batch, queries, self.heads, len(self.levels), self.points)
        if self.queries is None:
            grids = [
                torch.stack(torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy"), -1)
                for h, w in self.levels
            ]
            points = torch.cat([grid.flatten(0, 1) for grid in grids])[None, :, None]
        else:
            points = torch.rand(1, queries, 1, 2)
        tensors = {
            "value": torch.randn(self.batch, length, self.heads, self.dim).to(dtype),
            "points": points,
            "offsets": (2 * torch.randn(*shape, 2)).to(dtype),
            "logits": torch.randn(shape).to(dtype),
            "grad": torch.randn(self.batch, queries, self.heads * self.dim).to(dtype),
        }
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        tensors["locations"], tensors["weights"] = self.locate(*(tensors[n] for n in ("points", "offsets", "logits")))
        return tensors

    def locate(self, points: Tensor, offsets: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        sizes = torch.tensor([(w, h) for h, w in self.levels], dtype=torch.float32, device=points.device)
        weights = logits.flatten(3).softmax(-1, dtype=torch.float32).view(logits.shape)
        return points[:, :, None, :, None] + offsets.float() / sizes[:, None], weights


CASES = [Case(f"VITA encoder, {n} frames", VITA_LEVELS, n) for n in (1, 4, 5, 18)]
CASES.append(Case("DETR decoder, 300 queries", DETR_LEVELS, 4, queries=300))

Attention = Callable[[Tensor, Case, Tensor, Tensor], Tensor]


def in_value_dtype(function: Callable) -> Attention:
    """For implementations that want all tensors in one dtype."""
    return lambda value, case, locations, weights: function(
        value, case.levels, locations.to(value.dtype), weights.to(value.dtype)
    )


def implementations(device: torch.device, dtype: torch.dtype, original: Path | None) -> dict[str, Attention]:
    found: dict[str, Attention] = {
        "transformers": in_value_dtype(modeling_mask2former.multi_scale_deformable_attention)
    }
    kernel = "cuda" if device.type == "cuda" else "cpp"
    for backend in available_backends():
        if backend in (kernel, "pytorch"):
            found[backend] = lambda value, case, locations, weights, backend=backend: multi_scale_deformable_attention(
                value, case.levels, locations, weights, backend=backend
            )
    if device.type == "cuda" and original is not None and dtype == torch.float32:
        found["original"] = load_original(original)
    if device.type == "cuda":
        try:
            from deformops.integrations._ops import run_msda
        except ImportError:
            print("deformops is not installed, left out")
        else:
            shapes: dict[str, Tensor] = {}

            def deformops(value, case, locations, weights):
                if case.name not in shapes:
                    shapes[case.name] = torch.tensor(case.levels, device=device)
                locations, weights = locations.to(value.dtype), weights.to(value.dtype)  # it takes one dtype
                return run_msda(value, shapes[case.name], None, locations, weights, chunk_step=128, backend=None)

            found["deformops"] = deformops
    return found


ORIGINAL_DRIVER = r"""
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>
#include <tuple>
#include "ms_deform_im2col_cuda.cuh"

using at::Tensor;
#define SIZES value.size(0), value.size(1), value.size(2), value.size(3), locations.size(3), locations.size(1), \
    locations.size(4)
#define INPUTS value.const_data_ptr<float>(), shapes.const_data_ptr<int64_t>(), starts.const_data_ptr<int64_t>(), \
    locations.const_data_ptr<float>(), weights.const_data_ptr<float>()

Tensor forward(
    const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations, const Tensor& weights) {
  Tensor out = at::zeros({value.size(0), locations.size(1), value.size(2) * value.size(3)}, value.options());
  ms_deformable_im2col_cuda<float>(c10::cuda::getCurrentCUDAStream(), INPUTS, SIZES, out.mutable_data_ptr<float>());
  return out;
}

std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
    const Tensor& weights) {
  Tensor a = at::zeros_like(value), b = at::zeros_like(locations), c = at::zeros_like(weights);
  ms_deformable_col2im_cuda<float>(
      c10::cuda::getCurrentCUDAStream(), grad.const_data_ptr<float>(), INPUTS, SIZES, a.mutable_data_ptr<float>(),
      b.mutable_data_ptr<float>(), c.mutable_data_ptr<float>());
  return {a, b, c};
}

TORCH_LIBRARY(original_deformable_attention, m) {
  m.def("forward", &forward);
  m.def("backward", &backward);
}
"""


def build_original(wheel: Path, folder: Path, arches: tuple[str, ...] = ()) -> Path:
    """The kernel that ships in transformers 4.49's wheel, with a driver that needs no math libraries' headers."""
    name = "transformers/kernels/deformable_detr/cuda/ms_deform_im2col_cuda.cuh"
    with zipfile.ZipFile(wheel) as archive:
        (folder / Path(name).name).write_bytes(archive.read(name))
    for header in ("ATen/cuda/CUDAContext.h", "THC/THCAtomics.cuh", "ATen/ATen.h"):
        path = folder / "include" / header
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#pragma once\n")  # nothing of these is used
    source = folder / "original.cu"
    source.write_text(ORIGINAL_DRIVER)
    command, _ = kernel_build.cuda_command(arches)
    library = folder / "original.so"
    options = [f"-I{folder / 'include'}", f"-I{folder}", str(source), *kernel_build.link_flags("cuda")]
    subprocess.run([command[0], *options[:2], *command[1:], *options[2:], "-o", str(library)], check=True)
    return library


@functools.cache
def load_original(wheel: Path) -> Attention:
    folder = tempfile.TemporaryDirectory()
    library = build_original(wheel, Path(folder.name))
    ctypes.CDLL(str(library))
    torch.ops.load_library(library)
    ops = torch.ops.original_deformable_attention
    folder.cleanup()

    class Original(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return ops.forward(*inputs)

        @staticmethod
        def backward(ctx, grad):
            value, locations, weights = ops.backward(grad.contiguous(), *ctx.saved_tensors)
            return value, None, None, locations, weights

    sizes: dict[str, tuple[Tensor, Tensor]] = {}

    def original(value, case, locations, weights):
        if case.name not in sizes:
            shapes = torch.tensor(case.levels, device=value.device)
            counts = shapes.prod(1)
            sizes[case.name] = shapes, counts.cumsum(0) - counts
        return Original.apply(value, *sizes[case.name], locations, weights)

    return original


def seconds(run: Callable[[], object], device: torch.device, flush: Tensor | None) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    flush.zero_()  # the last round's tensors leave the cache
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).norm() / expected.norm()).item()


def tensor_bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(case: Case, device: torch.device, dtype: torch.dtype, rounds: int, original: Path | None) -> list[dict]:
    torch.manual_seed(0)
    x = case.inputs(device, dtype)
    grad = x["grad"]
    found = implementations(device, dtype, original)
    runs: dict[str, tuple[Callable, list[Tensor]]] = {}
    for name, function in found.items():
        runs[name] = (
            lambda v, l, w, function=function: function(v, case, l, w),
            [x[n] for n in ("value", "locations", "weights")],
        )
    # From raw projections: softmax and locations are part of what is timed.
    projections = [x[n] for n in ("value", "points", "offsets", "logits")]
    for name in ("transformers", "cuda" if device.type == "cuda" else "cpp"):
        if name not in found:
            continue
        if name == "transformers":

            def run(v, p, o, l, function=found[name]):
                return function(v, case, *case.locate(p, o, l))

        else:

            def run(v, p, o, l, name=name):
                return deformable_attention_from_projections(v, case.levels, p, o, l, backend=name)

        runs[f"{name}, from projections"] = (run, projections)

    def trained(function, tensors):
        tensors = [t.detach().requires_grad_(t is not x["points"]) for t in tensors]
        out = function(*tensors)
        return out, torch.autograd.grad(out, [t for t in tensors if t.requires_grad], grad.to(out.dtype))

    wide = [t.double() for t in runs["pytorch"][1]]
    reference, reference_grads = trained(
        lambda v, l, w: multi_scale_deformable_attention(v, case.levels, l, w, backend="pytorch"), wide
    )
    flush = torch.empty(2**28, dtype=torch.uint8, device=device) if device.type == "cuda" else None
    errors = {}
    for name, (function, tensors) in runs.items():  # also the warm-up
        out, grads = trained(function, tensors)
        errors[name] = [relative_error(out, reference), relative_error(grads[0], reference_grads[0])]
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "forward+backward": []} for name in runs}
    for _ in range(rounds):
        for name, (function, tensors) in runs.items():
            with torch.no_grad():
                times[name]["forward"].append(seconds(functools.partial(function, *tensors), device, flush))
        for name, (function, tensors) in runs.items():
            times[name]["forward+backward"].append(
                seconds(functools.partial(trained, function, tensors), device, flush)
            )

    rows = []
    for name, (_, tensors) in runs.items():
        base = "transformers" + name[len(name.split(",")[0]) :]
        # Forward reads the inputs and writes the output; backward reads both (grad for the output), writes gradients.
        inputs, output = tensor_bytes(*tensors), tensor_bytes(grad)
        row = {"case": case.name, "dtype": str(dtype).removeprefix("torch."), "implementation": name}
        for kind, least in (("forward", inputs + output), ("forward+backward", 3 * inputs + 2 * output)):
            median = statistics.median(times[name][kind])
            row[kind] = {
                "milliseconds": 1e3 * median,
                "times faster": statistics.median(times[base][kind]) / median,
                "least bytes a second": least / median,
            }
        row["error of output"], row["error of gradient"] = errors[name]
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    lines = [
        "| | dtype | implementation | forward, ms | × | GB/s | forward+backward, ms | × | GB/s | error | grad error |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row["case"], row["dtype"], row["implementation"]]
        for kind in ("forward", "forward+backward"):
            numbers = row[kind]
            cells += [f"{numbers['milliseconds']:.3g}", f"{numbers['times faster']:.2f}"]
            cells.append(f"{numbers['least bytes a second'] / 1e9:.3g}")
        cells += [f"{row['error of output']:.1e}", f"{row['error of gradient']:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32"])
    parser.add_argument("--cases", nargs="+", type=int, choices=range(len(CASES)), default=None, help="by number")
    parser.add_argument("--rounds", type=int, help="by default 7 on the CPU, 50 on a GPU")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--original", type=Path, help="the wheel of transformers 4.49.0")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {args.threads} threads"
    rounds = args.rounds or (50 if device.type == "cuda" else 7)
    rows = []
    for case in CASES if args.cases is None else [CASES[i] for i in args.cases]:
        for dtype in args.dtypes:
            rows += measure(case, device, getattr(torch, dtype), rounds, args.original)
    print(f"{machine}, torch {torch.__version__}, medians of {rounds} rounds\n\n{table(rows)}")
    if args.json:
        results = {"machine": machine, "torch": torch.__version__, "rounds": rounds, "results": rows}
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

r"""Time and error of every implementation of deformable attention, forward and forward with backward.

Implementations take turns in every round. The table has medians, how many times faster they are than transformers'
`grid_sample` implementation, errors against float64, and the bandwidth if each tensor crossed memory once. "From
projections" includes the softmax and the locations. Absolute times depend on the machine and its load; compare
the ratios.

    python benchmarks/benchmark_kernel.py                                    # CPU, 2 threads
    python benchmarks/benchmark_kernel.py --device cuda --dtypes float32 bfloat16 --json cuda.json \
        --original transformers-4.49.0-py3-none-any.whl                   # from `pip download --no-deps`

On CUDA, `deformops` takes part if it is installed, and the original kernel if its wheel is given.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.models.mask2former import modeling_mask2former

from measuring import device_name
from vita_hf.commands.evaluate import markdown_table
from vita_hf.modeling_detector import reference_points
from vita_hf.ops import available_backends, deformable_attention_from_projections, multi_scale_deformable_attention
from vita_hf.ops.build import cuda_command, link_flags

HEADS, DIM, POINTS = 8, 32, 4
VITA_LEVELS = ((12, 20), (24, 40), (48, 80))  # of 384×640 frames
DETR_LEVELS = ((100, 134), (50, 67), (25, 34), (13, 17))


@dataclass
class Case:
    name: str
    levels: tuple[tuple[int, int], ...]
    batch: int
    queries: int | None = None  # one for each pixel by default

    def inputs(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """Draw offsets of a few pixels around each query's own place, as in a trained encoder."""
        length = sum(h * w for h, w in self.levels)
        queries = self.queries or length
        shape = (self.batch, queries, HEADS, len(self.levels), POINTS)
        if self.queries is None:
            points = reference_points(self.levels, torch.device("cpu"))
        else:
            points = torch.rand(1, queries, 1, 2)
        tensors = {
            "value": torch.randn(self.batch, length, HEADS, DIM).to(dtype),
            "points": points,
            "offsets": (2 * torch.randn(*shape, 2)).to(dtype),
            "logits": torch.randn(shape).to(dtype),
            "grad": torch.randn(self.batch, queries, HEADS * DIM).to(dtype),
        }
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    def locate(self, points: Tensor, offsets: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return locations and attention weights."""
        sizes = torch.tensor([(w, h) for h, w in self.levels], dtype=torch.float32, device=points.device)
        weights = logits.flatten(3).softmax(-1, dtype=torch.float32).view(logits.shape)
        return points[:, :, None, :, None] + offsets.float() / sizes[:, None], weights


CASES = [Case(f"VITA encoder, {n} frames", VITA_LEVELS, n) for n in (1, 4, 5, 18)]
CASES.append(Case("DETR decoder, 300 queries", DETR_LEVELS, 4, queries=300))


def implementations(case: Case, device: torch.device, dtype: torch.dtype, wheel: Path | None) -> dict[str, Callable]:
    """Return functions of value, locations and weights; "from projections" of value, points, offsets and logits."""

    def transformers(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        tensors = locations.to(value.dtype), weights.to(value.dtype)
        return modeling_mask2former.multi_scale_deformable_attention(value, case.levels, *tensors)

    def ours(backend: str, value: Tensor, *tensors: Tensor) -> Tensor:
        return multi_scale_deformable_attention(value, case.levels, *tensors, backend=backend)

    def ours_from_projections(backend: str, value: Tensor, *tensors: Tensor) -> Tensor:
        return deformable_attention_from_projections(value, case.levels, *tensors, backend=backend)

    kernel = "cuda" if device.type == "cuda" else "cpp"
    backends = [name for name in available_backends() if name in (kernel, "pytorch")]
    functions: dict[str, Callable] = {"transformers": transformers}
    functions |= {name: functools.partial(ours, name) for name in backends}
    if device.type == "cuda":
        shapes = torch.tensor(case.levels, device=device)
        if wheel is not None and dtype == torch.float32:
            functions["original"] = functools.partial(load_original(wheel), shapes)
        if importlib.util.find_spec("deformops"):
            from deformops.integrations._ops import run_msda

            def deformops(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
                tensors = locations.to(value.dtype), weights.to(value.dtype)
                return run_msda(value, shapes, None, *tensors, chunk_step=128, backend=None)

            functions["deformops"] = deformops
    functions["transformers, from projections"] = lambda value, *tensors: transformers(value, *case.locate(*tensors))
    if kernel in backends:
        functions[f"{kernel}, from projections"] = functools.partial(ours_from_projections, kernel)
    return functions


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
    """Compile the kernel in transformers 4.49's wheel, with a driver that needs no headers of math libraries."""
    name = "transformers/kernels/deformable_detr/cuda/ms_deform_im2col_cuda.cuh"
    with zipfile.ZipFile(wheel) as archive:
        (folder / Path(name).name).write_bytes(archive.read(name))
    for header in ("ATen/cuda/CUDAContext.h", "THC/THCAtomics.cuh", "ATen/ATen.h"):  # included, but not used
        path = folder / "include" / header
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#pragma once\n")
    source, library = folder / "original.cu", folder / "original.so"
    source.write_text(ORIGINAL_DRIVER)
    (nvcc, *flags), _ = cuda_command(arches)
    includes = [f"-I{folder / 'include'}", f"-I{folder}"]
    subprocess.run([nvcc, *includes, *flags, source, *link_flags("cuda"), "-o", library], check=True)
    return library


class Original(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        ctx.save_for_backward(*inputs)
        return torch.ops.original_deformable_attention.forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        grads = torch.ops.original_deformable_attention.backward(grad.contiguous(), *ctx.saved_tensors)
        return grads[0], None, None, *grads[1:]


@functools.cache
def load_original(wheel: Path) -> Callable:
    with tempfile.TemporaryDirectory() as folder:
        torch.ops.load_library(build_original(wheel, Path(folder)))

    def original(shapes: Tensor, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        sizes = shapes.prod(1)
        return Original.apply(value, shapes, sizes.cumsum(0) - sizes, locations, weights)

    return original


def seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    torch.zeros(2**28, dtype=torch.uint8, device=device)  # the tensors of the last call leave the cache
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


def measure(case: Case, device: torch.device, dtype: torch.dtype, rounds: int, wheel: Path | None) -> list[dict]:
    torch.manual_seed(0)
    x = case.inputs(device, dtype)
    projections = [x[name] for name in ("points", "offsets", "logits")]
    located = case.locate(*projections)

    def train(function: Callable, *tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        tensors = [tensor.detach().requires_grad_(tensor is not x["points"]) for tensor in tensors]
        out = function(*tensors)
        return out, torch.autograd.grad(out, [t for t in tensors if t.requires_grad], x["grad"].to(out.dtype))

    functions = implementations(case, device, dtype, wheel)
    runs = {
        name: (function, [x["value"], *(projections if name.endswith("from projections") else located)])
        for name, function in functions.items()
    }
    out, gradients = train(functions["pytorch"], *(tensor.double() for tensor in (x["value"], *located)))
    errors = {}
    for name, (function, tensors) in runs.items():  # also the warm-up
        actual, actual_gradients = train(function, *tensors)
        errors[name] = relative_error(actual, out), relative_error(actual_gradients[0], gradients[0])
    times = defaultdict(list)
    for _ in range(rounds):
        for name, (function, tensors) in runs.items():
            with torch.no_grad():
                times[name, "forward"].append(seconds(functools.partial(function, *tensors), device))
        for name, (function, tensors) in runs.items():
            times[name, "forward+backward"].append(seconds(functools.partial(train, function, *tensors), device))

    rows = []
    for name, (_, tensors) in runs.items():
        base = "transformers, from projections" if name.endswith("from projections") else "transformers"
        # Forward reads the inputs and writes the output; backward reads both (grad for the output), writes gradients.
        inputs, output = tensor_bytes(*tensors), tensor_bytes(x["grad"])
        row = {"case": case.name, "dtype": str(dtype).removeprefix("torch."), "implementation": name}
        for kind, least in (("forward", inputs + output), ("forward+backward", 3 * inputs + 2 * output)):
            median, reference = (statistics.median(times[key, kind]) for key in (name, base))
            row |= {
                f"{kind}, ms": 1e3 * median,
                f"{kind}, ×": reference / median,
                f"{kind}, GB/s": least / median / 1e9,
            }
        row["error"], row["gradient's error"] = errors[name]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32"])
    parser.add_argument("--cases", nargs="+", type=int, choices=range(len(CASES)), default=range(len(CASES)))
    parser.add_argument("--rounds", type=int, help="by default 7 on the CPU, 50 on a GPU")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--original", type=Path, help="the wheel of transformers 4.49.0")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    rounds = args.rounds or (50 if args.device.type == "cuda" else 7)
    rows = []
    for case in args.cases:
        for dtype in args.dtypes:
            rows += measure(CASES[case], args.device, getattr(torch, dtype), rounds, args.original)
    machine = device_name(args.device, args.threads)
    print(f"{machine}, torch {torch.__version__}, medians of {rounds} rounds\n")
    print(markdown_table([{k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]))
    if args.json:
        results = {"machine": machine, "torch": torch.__version__, "rounds": rounds, "results": rows}
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

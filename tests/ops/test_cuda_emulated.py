"""The CUDA kernels' source, compiled for the CPU with warps of threads (`cuda_emulation`), against the C++ kernel.

Catches wrong indices, shares, shuffles, misaligned and missing accesses without a GPU; says nothing about speed.
"""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from helpers.backends import require
from helpers.deformable_attention import draw, relative_error
from vita_hf.ops import build

pytestmark = pytest.mark.slow
EMULATION = Path(__file__).parent / "cuda_emulation"


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    require("cpp")
    sources, folder = build.source_dir(), tmp_path_factory.mktemp("emulated")
    code = (sources / "deformable_attention_cuda" / "deformable_attention_cuda.cu").read_text()
    code, launches = re.subn(
        r"kernel<<<(.*), kThreads, 0, c10::cuda::getCurrentCUDAStream\(\)>>>\(", r"launch(kernel, \1, kThreads, ", code
    )
    assert launches == 2
    source = folder / "emulated.cpp"
    source.write_text('#include "emulation.h"\n' + code.replace("__CUDA_ARCH__", "EMULATED_ARCH"))
    library = folder / "emulated.so"
    command, _ = build.cpp_command()
    command += ["-DTORCH_EXTENSION_NAME=vita_hf_emulated", "-O1", f"-I{EMULATION}"]
    command += [f"-I{sources}", f"-I{sources / 'torch-ext'}", str(sources / "torch-ext" / "torch_binding.cpp")]
    subprocess.run([*command, str(source), *build.link_flags("cpp"), "-pthread", "-o", str(library)], check=True)
    torch.ops.load_library(library)
    return torch.ops.vita_hf_emulated


TOLERANCES = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.mark.parametrize(
    ("shapes", "dtype", "dim", "heads", "queries", "batch", "points"),
    [
        ([(3, 5), (4, 2)], torch.float32, 32, 2, 3, 2, 3),
        ([(3, 5), (4, 2)], torch.bfloat16, 32, 2, 5, 2, 4),
        ([(1, 1), (4, 2), (3, 3)], torch.float64, 32, 1, 3, 1, 2),
        ([(5, 7)], torch.float16, 8, 3, 3, 2, 1),
        ([(2, 3), (4, 4)], torch.float32, 24, 2, 3, 2, 5),
        ([(2, 3), (4, 4)], torch.float32, 256, 1, 2, 1, 2),
        ([(2, 3), (4, 4)], torch.bfloat16, 256, 1, 2, 1, 2),
        ([(2, 3)], torch.float64, 136, 1, 2, 1, 1),
        ([(2, 2)] * 8, torch.float16, 64, 1, 2, 1, 9),
    ],
)
def test_equals_the_cpp_kernel(emulated, shapes, dtype, dim, heads, queries, batch, points):
    sizes = [size for shape in shapes for size in shape]
    value, locations, weights = draw(
        shapes, batch=batch, queries=queries, heads=heads, dim=dim, points=points, dtype=dtype
    )
    locations[0, 0, 0, 0, 0] = torch.tensor([float("nan"), 1e30])
    grad = torch.randn(batch, queries, heads * dim).to(dtype)
    map_sizes = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float64)[:, None]
    reference_points = torch.full((batch, queries, len(shapes), 2), 0.5, dtype=locations.dtype)
    offsets = (((locations.double() - 0.5) * map_sizes * 8).round() / 8 + 1 / 16).to(dtype)
    logits = (3 * weights).to(dtype)
    for name, inputs in (
        ("deformable_attention", (value, locations, weights)),
        ("deformable_attention_from_projections", (value, reference_points, offsets, logits)),
        ("deformable_attention_from_projections", (value, reference_points[:1, :, :1], offsets, logits)),
    ):
        wide = [x.double() for x in inputs]
        forward, backward = (getattr(torch.ops.vita_hf_cpp, name + suffix) for suffix in ("", "_backward"))
        expected = forward(wide[0], sizes, *wide[1:]), *backward(grad.double(), wide[0], sizes, *wide[1:])
        forward, backward = (getattr(emulated, name + suffix) for suffix in ("", "_backward"))
        actual = forward(inputs[0], sizes, *inputs[1:]), *backward(grad, inputs[0], sizes, *inputs[1:])
        for a, e in zip(actual, expected):
            assert relative_error(a, e) < TOLERANCES[dtype]


def test_refuses_what_it_is_not_made_for(emulated):
    value, locations, weights = draw([(2, 3)], dim=12)
    with pytest.raises(ValueError, match="a head's channels are a multiple of 8 up to 256, got 12"):
        emulated.deformable_attention(value, [2, 3], locations, weights)
    value, locations, weights = draw([(1, 1)] * 33)
    with pytest.raises(ValueError, match="at most 32 levels are supported on CUDA, got 33"):
        emulated.deformable_attention(value, [1] * 66, locations, weights)


def test_the_backward_says_that_it_is_not_deterministic(emulated):
    value, locations, weights = draw([(2, 3)])
    grad = torch.zeros(2, 5, 16)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            emulated.deformable_attention_backward(grad, value, [2, 3], locations, weights)
    finally:
        torch.use_deterministic_algorithms(False)

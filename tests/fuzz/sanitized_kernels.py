"""
Call the C++ operators with random and with hostile arguments under AddressSanitizer and UBSan.

    python tests/fuzz/sanitized_kernels.py [INPUTS] [--seed SEED]

Each call must return or raise an error, and RLEs must decode as in NumPy. A memory error or undefined behavior ends the
program with the sanitizer's report; the last line before it names the seed of the call.
"""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from vita_hf.ops import build, loader, rle, rle_numpy

EXPECTED_ERRORS = (ValueError, TypeError, RuntimeError)
FLAGS = "-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
CACHE = Path(__file__).parents[2] / "build" / "sanitized-kernels"
OPERATORS = (
    "deformable_attention",
    "deformable_attention_backward",
    "deformable_attention_from_projections",
    "deformable_attention_from_projections_backward",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="?", type=int, default=2000, help="number of calls (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first call (default: %(default)s)")
    args = parser.parse_args()
    if "LD_PRELOAD" not in os.environ:
        run_under_sanitizers()
    loader.load("cpp")
    for seed in range(args.seed, args.seed + args.inputs):
        print(f"\rkernels: seed {seed}", end="", flush=True)
        call_operator(seed)
    print(f"\rkernels: {args.inputs} calls, no memory error and no undefined behavior")


def run_under_sanitizers() -> None:
    """Build the library with sanitizers, and run this program again with their runtime loaded first."""
    compiler = os.environ.get("CXX", "g++")
    os.environ |= {"CXX": f"{compiler} {FLAGS}", "VITA_HF_KERNELS_CACHE": str(CACHE)}
    build._TRY_OUT = ""  # this process lacks the runtime, with which compilers are slow
    build.build("cpp")
    # The C++ library as well: AddressSanitizer looks for `__cxa_throw` when it starts.
    names = ("libasan.so", "libstdc++.so.6")
    libraries = [subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip() for name in names]
    # Python and torch keep memory until they exit. Threads would make reports hard to read.
    settings = {"LD_PRELOAD": ":".join(libraries), "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})


def call_operator(seed: int) -> None:
    """Call one operator with arguments that follow from the seed; half of them are hostile."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    hostile = rng.random() < 0.5
    kind = rng.choice(("attention", "decode", "intersections"))
    try:
        if kind == "attention":
            name = rng.choice(OPERATORS)
            arguments = attention_arguments(name, rng, generator)
            arguments = [spoil(argument, rng) for argument in arguments] if hostile else arguments
            getattr(torch.ops.vita_hf_cpp, name)(*arguments)
        elif kind == "decode":
            check_decode(rng, hostile)
        else:
            arguments = [spoil(argument, rng) if hostile else argument for argument in rle_pairs(rng)]
            torch.ops.vita_hf_cpp.rle_intersections(*arguments, [arguments[0]])
    except EXPECTED_ERRORS:
        if not hostile:
            raise


def attention_arguments(name: str, rng: random.Random, generator: torch.Generator) -> list:
    """Valid arguments of an operator of deformable attention; some coordinates are infinite or not a number."""

    def tensor(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        values = 4 * torch.randn(shape, generator=generator)
        for _ in range(rng.randrange(3)):
            if values.numel():
                values.view(-1)[rng.randrange(values.numel())] = rng.choice((float("inf"), float("nan"), -1e30, 1e38))
        return values.to(dtype)

    dtype = rng.choice((torch.float32, torch.float64, torch.bfloat16, torch.float16))
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    batch, queries, levels, points = rng.randrange(3), rng.randrange(9), rng.randint(1, 4), rng.randint(1, 5)
    heads, channels = rng.randint(1, 5), rng.choice((1, 3, 8, 15, 16, 32, 33, 64))
    shapes = [rng.randint(1, 9) for _ in range(2 * levels)]
    length = sum(shapes[i] * shapes[i + 1] for i in range(0, 2 * levels, 2))
    value = tensor(batch, length, heads, channels, dtype=dtype)
    coordinates = dtype if "projections" in name else sums
    arguments = [value, shapes]
    if "projections" in name:
        arguments.append(tensor(rng.choice((1, batch)), queries, rng.choice((1, levels)), 2, dtype=sums))
    arguments.append(tensor(batch, queries, heads, levels, points, 2, dtype=coordinates))
    arguments.append(tensor(batch, queries, heads, levels, points, dtype=coordinates))
    if "backward" in name:
        arguments.insert(0, tensor(batch, queries, heads * channels, dtype=dtype))
    return arguments


def check_decode(rng: random.Random, hostile: bool) -> None:
    """Decode masks; compare with NumPy, which must also agree on which masks are corrupt."""
    pixels = rng.choice((0, 1, 12, 1000, rle.MAX_PIXELS, 1 << 40))
    strings = [rle_string(rng, min(pixels, rle.MAX_PIXELS), hostile) for _ in range(rng.randint(1, 4))]
    text = torch.tensor([ord(c) for c in "".join(strings)], dtype=torch.uint8)
    ends = torch.tensor(np.cumsum([len(s) for s in strings], dtype=np.int64))
    if hostile and rng.random() < 0.3:
        text, ends = spoil(text, rng), spoil(ends, rng)
        torch.ops.vita_hf_cpp.rle_decode(text, ends, pixels)
        return
    results = []
    for decode in (torch.ops.vita_hf_cpp.rle_decode, rle_numpy.decode):
        on_torch = decode is not rle_numpy.decode
        try:
            decoded = decode(*((text, ends) if on_torch else (text.numpy(), ends.numpy())), pixels)
            results.append([np.asarray(part).tolist() for part in decoded])
        except ValueError:
            results.append("corrupt")
    if pixels <= rle.MAX_PIXELS and results[0] != results[1]:
        raise AssertionError(f"C++ decodes {strings} of {pixels} pixels to {results[0]}, NumPy to {results[1]}")


def rle_string(rng: random.Random, pixels: int, hostile: bool) -> str:
    """Compressed counts of `pixels` pixels; if hostile, with some characters changed."""
    cuts = sorted(rng.randint(0, pixels) for _ in range(rng.randrange(6)))
    runs = [after - before for before, after in zip([0, *cuts], [*cuts, pixels])]
    characters = list(rle.compress(runs, pixels))
    for _ in range(rng.randrange(4) if hostile else 0):
        characters.insert(rng.randint(0, len(characters)), chr(rng.choice((48, 79, 80, 111, 127, 255, 32))))
        characters.pop(rng.randrange(len(characters)))
    return "".join(characters[: rng.randint(0, len(characters))] if hostile and rng.random() < 0.3 else characters)


def rle_pairs(rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Run lengths of some tracks, and the tracks' first rows."""
    rows = rng.randrange(8)
    starts = sorted(rng.randint(0, rows) for _ in range(rng.randint(1, 4)))
    return torch.randint(0, 1 << 29, (rows, 2), dtype=torch.int32), torch.tensor(starts)


def spoil(argument, rng: random.Random):
    """Change an argument's values, shape, dtype or strides, or leave it."""
    if rng.random() < 0.5:
        return argument
    if isinstance(argument, list):
        argument = list(argument)
        argument[rng.randrange(len(argument))] = rng.choice((0, -1, 1, 7, 1 << 31, 1 << 62, -(1 << 63)))
        return argument
    change = rng.randrange(5)
    if change == 0 and argument.numel() and not argument.is_floating_point():
        argument = argument.clone()
        limits = torch.iinfo(argument.dtype)
        argument.view(-1)[rng.randrange(argument.numel())] = rng.choice((0, 1, limits.min, limits.max))
    elif change == 1:
        argument = argument.to(rng.choice((torch.int64, torch.float16, torch.float32, torch.uint8)))
    elif change == 2 and argument.ndim:
        argument = argument.narrow(axis := rng.randrange(argument.ndim), 0, rng.randint(0, argument.shape[axis]))
    elif change == 3 and argument.ndim:
        argument = argument.transpose(0, rng.randrange(argument.ndim))
    elif change == 4:
        argument = argument[None].expand(2, *argument.shape) if rng.random() < 0.5 else argument.flatten()
    return argument


if __name__ == "__main__":
    main()

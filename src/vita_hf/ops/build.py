"""Compile the kernels of the folder `kernels` once a machine, into a cache."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from filelock import FileLock

NAMESPACES = {"cpp": "vita_hf_cpp", "cuda": "vita_hf_cuda"}


class BuildError(RuntimeError):
    """A kernel can't be built here; the message says why and where the compiler's output is."""


def source_dir() -> Path:
    """Deformable attention's folder: inside the installed package, or next to `src` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_kernels", package.parents[1] / "kernels"):
        if (folder / "deformable_attention" / "build.toml").is_file():
            return folder / "deformable_attention"
    raise BuildError(f"the kernels' sources are missing: neither {package / '_kernels'} nor {folder} has them")


def cache_dir() -> Path:
    """`VITA_HF_KERNELS_CACHE`, by default `vita-hf/kernels` under the user's cache folder."""
    if folder := os.environ.get("VITA_HF_KERNELS_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vita-hf" / "kernels"


def build(backend: str, arches: Sequence[str] = (), retry: bool = False, namespace: str | None = None) -> Path:
    """Path of the backend's library, compiled unless the cache has it.

    The cache's key is made of sources, torch's version, the compiler with what it targets, and all flags. A file lock
    keeps processes that start together from compiling twice.

    Args:
        backend: `"cpp"` or `"cuda"`.
        arches: compute capabilities for CUDA, like `"9.0"`; by default those of the devices that are there.
        retry: compile again what failed before with the same key; otherwise that fails at once.
        namespace: of the operators in `torch.ops`, for a library of deformable attention alone. By default it is
            `NAMESPACES[backend]`, and the C++ library has what else the package needs on the CPU.

    Raises:
        BuildError: no compiler, no sources, nothing to compile for, or the compiler failed.
    """
    sources = source_dir()
    others = [sources.parent / "rle"] if backend == "cpp" and namespace is None else []
    namespace = namespace or NAMESPACES[backend]
    command, compiler = _cpp_command() if backend == "cpp" else _cuda_command(arches)
    command.append(f"-DTORCH_EXTENSION_NAME={namespace}")
    files = sorted(sources.glob(f"deformable_attention_{'cpu' if backend == 'cpp' else 'cuda'}/*.c*"))
    files = [sources / "torch-ext" / "torch_binding.cpp", *(f for f in files if f.suffix in (".cpp", ".cu"))]
    files += sorted(file for folder in others for file in folder.glob("*.cpp"))
    key = hashlib.sha256()
    for part in (torch.__version__, compiler, *command):
        key.update(part.encode() + b"\0")
    read = (path for folder in (sources, *others) for path in folder.rglob("*"))
    for path in sorted(path for path in read if path.suffix in (".h", ".cuh", ".cpp", ".cu")):
        key.update(str(path.relative_to(sources.parent)).encode() + b"\0" + path.read_bytes() + b"\0")

    folder = cache_dir()
    library = folder / f"{namespace}-{key.hexdigest()[:16]}.so"
    if library.exists():
        return library
    log = library.with_suffix(".log")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(library.with_suffix(".lock"))
        with lock:
            if library.exists():  # another process was first
                return library
            if log.exists() and not retry:
                raise BuildError(f"compiling failed before, see {log}; `python -m vita_hf.ops build` tries again")
            command += [f"-I{sources}", f"-I{sources / 'torch-ext'}", *map(str, files), *_libraries(backend)]
            _compile(command, backend, library, log)
    except OSError as error:
        raise BuildError(f"{folder} can't be used as a cache (VITA_HF_KERNELS_CACHE sets another): {error}") from error
    return library


def _compile(command: list[str], backend: str, library: Path, log: Path) -> None:
    print(
        f"vita-hf: compiling the {backend} kernels, once on this machine, usually in less than "
        f"{'a minute' if backend == 'cpp' else 'three minutes'} …",
        end="",
        file=sys.stderr,
        flush=True,
    )
    start = time.monotonic()
    # Renamed when complete: whoever finds the library under its name can load it.
    partial = library.with_suffix(f".{os.getpid()}.tmp")
    command = [*command, "-o", str(partial)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(f" {time.monotonic() - start:.0f} s", file=sys.stderr)
    if result.returncode != 0:
        partial.unlink(missing_ok=True)
        log.write_text(f"{' '.join(command)}\n\n{result.stdout}")
        raise BuildError(f"{command[0]} failed with exit status {result.returncode}, see {log}")
    log.unlink(missing_ok=True)
    partial.replace(library)


def _torch_flags(backend: str) -> list[str]:
    root = Path(torch.__file__).parent
    includes = (root / "include", root / "include" / "torch" / "csrc" / "api" / "include")
    kind = "CPU" if backend == "cpp" else "CUDA"
    return [
        "-std=c++20",
        "-O3",
        "-shared",
        f"-D{kind}_KERNEL",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        *(flag for folder in includes for flag in ("-isystem", str(folder))),
    ]


def _libraries(backend: str) -> list[str]:
    """After the sources: linkers drop what nothing before it needs."""
    names = ("c10", "torch_cpu") if backend == "cpp" else ("c10", "torch_cpu", "c10_cuda")
    return [f"-L{Path(torch.__file__).parent / 'lib'}", *(f"-l{name}" for name in names)]


def _cpp_command() -> tuple[list[str], str]:
    """The command without sources and output, and a text that changes with the compiler and what it targets."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    compiler = next((shlex.split(name) for name in names if shutil.which(shlex.split(name)[0])), None)
    if compiler is None:
        raise BuildError(f"no C++ compiler: none of {', '.join(names)} is there (CXX names another)")
    for target in (["-march=native"], []):
        # Prints every predefined macro: version, instruction sets and all.
        probe = [*compiler, *target, "-dM", "-E", "-x", "c++", os.devnull]
        result = subprocess.run(probe, capture_output=True, text=True)
        if result.returncode == 0:
            return [*compiler, *target, "-fopenmp", "-fPIC", *_torch_flags("cpp")], result.stdout
    raise BuildError(f"{' '.join(probe)} failed: {result.stderr.strip()}")


def _cuda_home() -> Path:
    """The toolkit at `CUDA_HOME`, /usr/local/cuda, or pip's (extra `[cuda-build]`)."""
    major = torch.version.cuda.split(".")[0]
    candidates = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    candidates += [Path(path) / "nvidia" / f"cu{major}" for path in sys.path]
    for home in candidates:
        if home and (Path(home) / "bin" / "nvcc").is_file():
            return Path(home)
    raise BuildError(
        "no nvcc at CUDA_HOME, in /usr/local/cuda or from pip (`pip install vita-hf[cuda-build]`), "
        f"CUDA {major} is wanted"
    )


def _cuda_command(arches: Sequence[str]) -> tuple[list[str], str]:
    if torch.version.cuda is None:
        raise BuildError(f"torch {torch.__version__} is built without CUDA")
    home = _cuda_home()
    nvcc = str(home / "bin" / "nvcc")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    major = torch.version.cuda.split(".")[0]
    if f"release {major}." not in version:
        found = next((line for line in version.splitlines() if "release" in line), version).strip()
        raise BuildError(f"{nvcc} does not match torch's CUDA {torch.version.cuda}: {found}")
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    arches = sorted(set(arches) or {"{}.{}".format(*torch.cuda.get_device_capability(i)) for i in devices})
    if not arches:
        raise BuildError("no CUDA device is there and no --arch was given")
    numbers = [arch.replace(".", "") for arch in arches]
    if not all(number.isdecimal() for number in numbers):
        raise BuildError(f"arch: expected compute capabilities like 9.0, got {', '.join(arches)}")
    if any(int(number) < 80 for number in numbers):
        raise BuildError(f"compute capability 8.0 is the least, got {', '.join(arches)}")
    # No CUDA runtime of our own: the symbols are found in the one that torch has loaded.
    command = [nvcc, "-cudart=none", "-Xcompiler=-fPIC", *_torch_flags("cuda")]
    command += [f"-gencode=arch=compute_{n},code=sm_{n}" for n in numbers]
    return command, version

"""
Compile the kernels into a cache, once per machine.

`torch.utils.cpp_extension.load` does not work here: it needs ninja, does not find nvcc from pip, links a second CUDA
runtime, loads libraries built for other GPUs, and retries a failed build in every process.
"""

import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from filelock import FileLock

from ..files import hash_content, write_atomically

# torch brings the libraries that the kernels need.
_TRY_OUT = "import ctypes, sys, torch; ctypes.CDLL(sys.argv[1])"

NAMESPACES = {"cpp": "vita_hf_cpp", "cuda": "vita_hf_cuda"}


class BuildError(RuntimeError):
    """A kernel cannot be built on this machine; the message gives the reason and the log of the compiler."""


def source_dir() -> Path:
    """Return the folder of deformable attention: inside the installed package, or next to `src` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    candidates = (package / "_kernels", package.parents[1] / "kernels")
    for folder in candidates:
        if (folder / "deformable_attention" / "build.toml").is_file():
            return folder / "deformable_attention"
    raise BuildError(f"the sources of the kernels are missing, expected in {' or '.join(map(str, candidates))}")


def cache_dir() -> Path:
    """Return `VITA_HF_KERNELS_CACHE`, by default `vita-hf/kernels` in the user's cache folder."""
    if folder := os.environ.get("VITA_HF_KERNELS_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vita-hf" / "kernels"


def build(backend: str, arches: Sequence[str] = (), retry: bool = False, namespace: str | None = None) -> Path:
    """
    Compile the library of a backend, unless the cache has it.

    The cache is keyed by the sources, torch's version, the compiler and its target, and all flags. A file lock keeps
    processes that start together from compiling twice. A library that has changed since it was built is built again.

    Args:
        backend: `"cpp"` or `"cuda"`.
        arches: Compute capabilities for CUDA, like `"9.0"`; by default those of the devices of this machine.
        retry: Compile again what failed before with the same key, instead of failing at once.
        namespace: Namespace of the operators in `torch.ops`, for a library of deformable attention alone. By default
            it is `NAMESPACES[backend]`, and the C++ library has the RLE operators as well.

    Returns:
        The path of the library.

    Raises:
        BuildError: if there is no compiler, no source or no device to compile for, the compiler fails, or another user
            could have written the library.
    """
    root = source_dir()
    rle = [root.parent / "rle"] if backend == "cpp" and namespace is None else []
    namespace = namespace or NAMESPACES[backend]
    command, target = cpp_command() if backend == "cpp" else cuda_command(arches)
    command.append(f"-DTORCH_EXTENSION_NAME={namespace}")
    device = "cpu" if backend == "cpp" else "cuda"
    folders = [root / name for name in ("torch-ext", "deformable_attention_common", f"deformable_attention_{device}")]
    files = sorted(path for folder in (*folders, *rle) for path in folder.iterdir() if path.is_file())
    sources = [path for path in files if path.suffix in (".cpp", ".cu")]
    key = hashlib.sha256()
    for part in (torch.__version__, target, *command):
        key.update(part.encode() + b"\0")
    for path in files:
        key.update(str(path.relative_to(root.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    command += [f"-I{root}", f"-I{root / 'torch-ext'}", *map(str, sources), *link_flags(backend)]

    folder = cache_dir()
    library = folder / f"{namespace}-{key.hexdigest()[:16]}.so"
    log = library.with_suffix(".log")
    try:
        if is_intact(library):
            return library
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        check_owner(folder)
        with FileLock(library.with_suffix(".lock")):
            if not is_intact(library):  # another process may have been first
                if log.exists() and not retry:
                    raise BuildError(f"compiling failed before, see {log}; `python -m vita_hf.ops build` tries again")
                _compile(command, backend, library, log)
    except OSError as error:
        raise BuildError(f"{folder} cannot be used as a cache (VITA_HF_KERNELS_CACHE sets another): {error}") from error
    return library


def is_intact(library: Path) -> bool:
    """
    Tell whether the cache has a library, as complete as when it was built: a cut one would end the process.

    Raises:
        BuildError: if another user could have written it.
    """
    checksum = library.with_suffix(".sha256")
    if not (library.is_file() and checksum.is_file()):
        return False
    for path in (library.parent, library):
        check_owner(path)
    return hash_content(library) == checksum.read_text()


def check_owner(path: Path) -> None:
    """Raise a `BuildError` if another user could have written a library or its folder: to load it is to run it."""
    if not hasattr(os, "getuid"):  # Windows
        return
    owners = {path.lstat().st_uid, path.stat().st_uid}  # of a symbolic link, too
    if owners - {0, os.getuid()}:
        raise BuildError(f"{path} belongs to another user: expected your own or root's (VITA_HF_KERNELS_CACHE sets it)")
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BuildError(f"other users can write to {path}: `chmod go-w {path}`, if you trust what is in it")


def _compile(command: list[str], backend: str, library: Path, log: Path) -> None:
    duration = "a minute" if backend == "cpp" else "three minutes"
    message = f"vita-hf: compiling the {backend} kernels, once on this machine, usually in less than {duration} …"
    print(message, end="", file=sys.stderr, flush=True)
    start = time.monotonic()
    # Renamed when complete and tried out: a library under its final name can be loaded.
    partial = library.with_suffix(f".{os.getpid()}.tmp")
    command = [*command, "-o", str(partial)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(f" {time.monotonic() - start:.0f} s", file=sys.stderr)
    if result.returncode != 0:
        partial.unlink(missing_ok=True)
        log.write_text(f"{' '.join(command)}\n\n{result.stdout}")
        raise BuildError(f"{command[0]} failed with exit status {result.returncode}, see {log}")
    if error := _try_out(partial):
        partial.unlink()
        log.write_text(f"{' '.join(command)}\n\n{result.stdout}\n{error}")
        raise BuildError(f"the library that {command[0]} made cannot be loaded, see {log}")
    log.unlink(missing_ok=True)
    partial.chmod(0o755)
    write_atomically(library.with_suffix(".sha256"), hash_content(partial).encode())
    partial.replace(library)


def _try_out(library: Path) -> str | None:
    """Load a library in a process of its own, which may crash; return what went wrong, or None."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run(
        [sys.executable, "-c", _TRY_OUT, str(library)], env=environment, capture_output=True, text=True
    )
    return f"exit status {loaded.returncode}: {loaded.stderr}" if loaded.returncode else None


def _torch_flags(backend: str) -> list[str]:
    root = Path(torch.__file__).parent
    includes = (root / "include", root / "include" / "torch" / "csrc" / "api" / "include")
    return [
        "-std=c++20",
        "-O3",
        "-shared",
        f"-D{'CPU' if backend == 'cpp' else 'CUDA'}_KERNEL",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        *(flag for folder in includes for flag in ("-isystem", str(folder))),
    ]


def link_flags(backend: str) -> list[str]:
    """Return the linker's flags. They follow the sources: linkers drop libraries that nothing before them needs."""
    names = ("c10", "torch_cpu") if backend == "cpp" else ("c10", "torch_cpu", "c10_cuda")
    return [f"-L{Path(torch.__file__).parent / 'lib'}", *(f"-l{name}" for name in names)]


def cpp_command() -> tuple[list[str], str]:
    """Return the C++ compiler with flags, and a text that changes with the compiler and its target."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    compiler = next((shlex.split(name) for name in names if shutil.which(shlex.split(name)[0])), None)
    if compiler is None:
        raise BuildError(f"no C++ compiler: found none of {', '.join(names)} (CXX names another)")
    error = ""
    for target in (["-march=native"], []):
        # Prints every predefined macro: version, instruction sets and all.
        probe = [*compiler, *target, "-dM", "-E", "-x", "c++", os.devnull]
        result = subprocess.run(probe, capture_output=True, text=True)
        if result.returncode == 0:
            return [*compiler, *target, "-fopenmp", "-fPIC", *_torch_flags("cpp")], result.stdout
        error = f"{' '.join(probe)} failed: {result.stderr.strip()}"
    raise BuildError(error)


def _find_nvcc(cuda: str) -> str:
    """Find nvcc at `CUDA_HOME`, in /usr/local/cuda, or as installed by pip."""
    major = cuda.split(".")[0]
    candidates = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    candidates += [os.path.join(path, "nvidia", f"cu{major}") for path in sys.path]
    for home in candidates:
        if home and os.path.isfile(nvcc := os.path.join(home, "bin", "nvcc")):
            return nvcc
    raise BuildError(
        f"no nvcc: expected that of CUDA {major} at CUDA_HOME, in /usr/local/cuda or from pip "
        f"(`pip install 'cuda-toolkit[nvcc,cudart,cccl]=={major}.*'`)"
    )


def cuda_command(arches: Sequence[str]) -> tuple[list[str], str]:
    """Return nvcc with flags for some compute capabilities, and its version."""
    cuda = torch.version.cuda
    if cuda is None:
        raise BuildError(f"torch {torch.__version__} is built without CUDA")
    nvcc = _find_nvcc(cuda)
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    if f"release {cuda.split('.')[0]}." not in version:
        release = next((line for line in version.splitlines() if "release" in line), version).strip()
        raise BuildError(f"{nvcc} does not match torch's CUDA {cuda}: {release}")
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    arches = sorted(set(arches) or {"{}.{}".format(*torch.cuda.get_device_capability(i)) for i in devices})
    if not arches:
        raise BuildError("this machine has no CUDA device, and no --arch was given")
    numbers = [arch.replace(".", "") for arch in arches]
    if not all(number.isdecimal() for number in numbers):
        raise BuildError(f"arch: expected compute capabilities like 9.0, got {', '.join(arches)}")
    if any(int(number) < 80 for number in numbers):
        raise BuildError(f"arch: expected compute capabilities of at least 8.0, got {', '.join(arches)}")
    # Without a CUDA runtime of its own: torch has loaded one, which has the symbols.
    command = [nvcc, "-cudart=none", "-Xcompiler=-fPIC", *_torch_flags("cuda")]
    command += [f"-gencode=arch=compute_{n},code=sm_{n}" for n in numbers]
    return command, version

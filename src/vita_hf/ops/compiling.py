"""Compile a C source once a machine, into the cache that the package's other kernels have too.

`vita_hf.ops.build` does the same for PyTorch's extensions. This folder has to work without the package around it.
"""

import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

# Nothing specific to this machine's processor: home folders are shared between machines.
FLAGS = ["-std=c99", "-O3", "-shared", "-fPIC"]
TIMEOUT = 120  # seconds


def compile_once(name: str, source: str) -> Path | None:
    """Path of the library made of a C source, compiled unless the cache has it; `None` where that is not possible.

    The compiler is `CC`, cc, gcc or clang; the cache `VITA_HF_KERNELS_CACHE`, by default `vita-hf/kernels` under the
    user's cache folder. `VITA_HF_KERNELS` set to `off` or `pytorch` permits no compiling.

    Args:
        name: of the library, without what distinguishes versions.
        source: C99 that needs no headers but the standard's.
    """
    if os.environ.get("VITA_HF_KERNELS", "auto").lower() in ("off", "pytorch"):
        return None
    try:
        return _compile(name, source)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.info("%s is not compiled, numpy takes over: %s", name, error)
        return None


def _compile(name: str, source: str) -> Path:
    if sys.platform == "win32":
        raise RuntimeError("no compiler is known here")
    candidates = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    compiler = next((shlex.split(entry) for entry in candidates if shutil.which(shlex.split(entry)[0])), None)
    if compiler is None:
        raise RuntimeError(f"no C compiler: none of {', '.join(candidates)} is there (CC names another)")
    command = [*compiler, *FLAGS]
    key = hashlib.sha256("\0".join([sysconfig.get_platform(), *command, source]).encode()).hexdigest()
    library = _cache_dir() / f"{name}-{key[:16]}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: of processes that start together each may compile, whoever finds the name can load it.
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=f"{name}-") as folder:
        path, partial = Path(folder) / f"{name}.c", Path(folder) / library.name
        path.write_text(source)
        command += [str(path), "-o", str(partial)]
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=TIMEOUT
        )
        if result.returncode != 0:
            raise RuntimeError(f"{compiler[0]} failed with exit status {result.returncode}: {result.stdout.strip()}")
        partial.replace(library)
    return library


def _cache_dir() -> Path:
    if folder := os.environ.get("VITA_HF_KERNELS_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vita-hf" / "kernels"

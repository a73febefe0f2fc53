"""Package the kernel in the layout of the `kernels` library, for other transformers models."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from .build import build, source_dir


def package(folder: Path, backend: str = "cpp", arches: Sequence[str] = ()) -> Path:
    """
    Compile for one backend and write a folder for `kernels.LocalLayerRepository(folder, layer_name=…)`.

    The operators have their own namespace and do not collide with those that vita-hf itself loads.

    Args:
        folder: The folder to write to; files of the same names are replaced.
        backend: `"cpp"` or `"cuda"`.
        arches: Compute capabilities for CUDA, as in [`build`].

    Returns:
        `folder`.

    Raises:
        BuildError: if the kernel cannot be built on this machine.
    """
    namespace = f"deformable_attention_{backend}"
    library = build(backend, arches, retry=True, namespace=namespace)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (source_dir() / "torch-ext" / "deformable_attention").glob("*.py"):
        shutil.copy(path, folder)
    shutil.copy(library, folder / f"_{namespace}.so")
    (folder / "_ops.py").write_text(
        f"""from pathlib import Path

import torch

torch.ops.load_library(Path(__file__).parent / "_{namespace}.so")
ops = torch.ops.{namespace}


def add_op_namespace_prefix(name: str) -> str:
    return f"{namespace}::{{name}}"
"""
    )
    metadata = {
        "id": f"{namespace}_local",
        "name": "deformable-attention",
        "version": 1,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": "cpu" if backend == "cpp" else "cuda"},
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return folder

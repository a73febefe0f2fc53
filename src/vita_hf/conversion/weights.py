"""Weights of the original implementation: reading its files, and renaming its tensors."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..ops.rle import shorten
from .key_names import UNNEEDED, UNUSED, new_names


def read_weights(path: Path) -> dict[str, Tensor]:
    """
    Read the state dict in a `.pth` file, itself or under "model", without running any code in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds other things than tensors and plain values, is damaged, or has no state dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    compressions = _list_compressions(path)
    if compressions - {zipfile.ZIP_STORED}:  # mapped into memory, they would be noise
        raise ValueError(f"{path}: refused: its entries are compressed, expected a file as torch.save writes it")
    try:
        # Mapped into memory if the format allows, so that an optimizer's state takes none.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=bool(compressions))
    except Exception as error:  # torch raises errors of many types for files of other formats
        if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = f"it holds Python objects ({match[1]}), which can run code; if trusted, save only its state dict"
        else:
            reason = f"not a PyTorch checkpoint, or a damaged one ({type(error).__name__})"
        raise ValueError(f"{path}: refused: {reason}") from error
    state_dict = checkpoint.get("model", checkpoint) if isinstance(checkpoint, Mapping) else checkpoint
    is_mapping = isinstance(state_dict, Mapping)
    if not (is_mapping and state_dict and all(isinstance(value, Tensor) for value in state_dict.values())):
        raise ValueError(f"{path}: expected a state dict, name → tensor, itself or under 'model'")
    if absent := [name for name, tensor in state_dict.items() if tensor.is_meta]:
        raise ValueError(
            f"{path}: {len(absent)} tensors without values (on the device 'meta'), such as {shorten(absent[0])}"
        )
    if unnamed := [key for key in state_dict if not isinstance(key, str)]:
        raise ValueError(f"{path}: expected names of tensors, got the key {shorten(unnamed[0])}")
    return dict(state_dict)


def _list_compressions(path: Path) -> set[int]:
    """Return the methods of compression in a zip file; none for other files, among them PyTorch's older format."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {entry.compress_type for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return set()


def convert_state_dict(
    state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """
    Rename the tensors of an original state dict, and split stacked attention projections.

    Args:
        state_dict: Original name → tensor.
        expected: The `state_dict()` of this package's model, for its names and shapes; meta tensors suffice.

    Returns:
        The tensors under the model's names (views of the originals, not copies), and the original names of those that
        the model does not need.

    Raises:
        ValueError: if a tensor is unknown, missing, of another shape or kind (integer, complex, sparse), or has values
            that are not finite in float32; the message lists every one.

    Example:
    ```python
    >>> import torch
    >>> from vita_hf.conversion import convert_state_dict

    >>> original = {"vita_module.class_embed.bias": torch.zeros(41), "criterion.empty_weight": torch.ones(41)}
    >>> converted, unneeded = convert_state_dict(original, {"video_class_predictor.bias": torch.empty(41)})
    >>> list(converted), unneeded
    (['video_class_predictor.bias'], ['criterion.empty_weight'])

    ```
    """
    if odd := [
        f"{name}: {tensor.dtype}, {tensor.layout}" for name, tensor in state_dict.items() if _is_odd(name, tensor)
    ]:
        raise ValueError("\n  ".join([f"expected dense tensors of real numbers, got ({len(odd)}):", *odd]))
    converted: dict[str, Tensor] = {}
    original_names: dict[str, str] = {}
    unneeded, unknown = [], []
    for name, tensor in state_dict.items():
        names = new_names(name)
        if UNNEEDED.fullmatch(name):
            unneeded.append(name)
        elif names and expected.keys() >= set(names):
            converted.update(zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor]))
            original_names.update(dict.fromkeys(names, name))
        else:
            unknown.append(f"{name} {_shape(tensor)}")

    missing = [name for name in expected if name not in converted and not UNUSED.fullmatch(name)]
    problems = {
        "In the checkpoint, but not in the model": unknown,
        "In the model, but not in the checkpoint": [f"{name} {_shape(expected[name])}" for name in missing],
        "Of another shape": [
            f"{original_names[name]} → {name}: expected {_shape(expected[name])}, got {_shape(tensor)}"
            for name, tensor in converted.items()
            if tensor.shape != expected[name].shape
        ],
    }
    if not any(problems.values()):
        wrong = {original_names[name]: None for name, tensor in converted.items() if not _is_finite(tensor)}
        problems["With values that are not finite in float32"] = [*wrong]
    if any(problems.values()):
        lists = ("\n  ".join([f"{title} ({len(lines)}):", *lines]) for title, lines in problems.items() if lines)
        raise ValueError("the checkpoint does not fit the configuration\n" + "\n".join(lists))
    return converted, unneeded


def _is_odd(name: str, tensor: Tensor) -> bool:
    """Tell whether a tensor that the model needs is integer, complex, quantized or sparse."""
    is_plain = tensor.is_floating_point() and tensor.layout == torch.strided
    return not is_plain and not UNNEEDED.fullmatch(name) and bool(new_names(name))


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_meta or bool(tensor.float().isfinite().all())


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"

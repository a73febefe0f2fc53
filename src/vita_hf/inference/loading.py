"""Load a model and its processor from a directory or the Hub, and check that both are complete."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoVideoProcessor

from ..configuration_vita import VitaConfig, config_errors
from ..files import hash_content
from ..image_processing_vita import VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..ops.rle import shorten
from ..text import did_you_mean

# Small enough to ship in the wheel. It knows only the shapes of the synthetic dataset.
SHIPPED_MODEL = Path(__file__).parents[1] / "models" / "tiny-synthetic"

_PROCESSOR_FILES = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")
_MAX_SIDE, _MAX_NUMBER = 1 << 15, 1e9  # in settings of a processor


def load_model(
    model: str | Path, dtype: torch.dtype | str = "auto"
) -> tuple[VitaForVideoInstanceSegmentation, VitaVideoProcessor]:
    """
    Load a model for inference. Missing weights are an error, and never initialized at random.

    Args:
        model: A directory written by `save_pretrained` or `vita-hf convert`, or a Hub id.
        dtype: Dtype of the weights; "auto" keeps the checkpoint's.

    Returns:
        The model, on the CPU and in evaluation mode, and its processor.

    Raises:
        FileNotFoundError: if there is no such directory.
        OSError: if the Hub has no such model or cannot be reached.
        ValueError: if it is not a VITA model, weights or the processor's settings are missing, or a file cannot be
            read.
    """
    config = load_config(model)
    processor = load_processor(model)
    try:
        loaded, report = VitaForVideoInstanceSegmentation.from_pretrained(
            model, config=config, dtype=dtype, output_loading_info=True
        )
    except OSError as error:
        raise OSError(f"{model} has no weights that can be loaded: {first_line(error)}") from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged files and odd configurations make transformers raise almost anything
        raise ValueError(f"the weights of {model} cannot be read: {first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{model} lacks {len(missing)} of the model's weights, for example {missing[0]}: it is not a complete VITA "
            "model"
        )
    return loaded.eval(), processor


def load_config(model: str | Path) -> VitaConfig:
    """Load a model's configuration. It raises the same errors as `load_model`."""
    _check_directory(model, ("config.json",), "holds no model: config.json is missing")
    try:
        with _explained(f"the configuration of {model}"), config_errors("config.json"):
            config = AutoConfig.from_pretrained(model)
    except OSError as error:
        raise error if Path(model).is_dir() else OSError(no_such_model(str(model), error)) from error
    if not isinstance(config, VitaConfig):
        raise ValueError(f"{model} is a model of type {config.model_type!r}, expected 'vita'")
    return config


def load_processor(model: str | Path) -> VitaVideoProcessor:
    """Load a model's processor. It raises the same errors as `load_model`."""
    _check_directory(
        model,
        _PROCESSOR_FILES,
        f"has no processor: {_PROCESSOR_FILES[0]} is missing; VitaVideoProcessor(…).save_pretrained writes it, with "
        "the frame size that the model was trained with",
    )
    with _explained(f"the processor of {model}"):
        processor = AutoVideoProcessor.from_pretrained(model)
    if not isinstance(processor, VitaVideoProcessor):
        raise ValueError(f"the processor of {model} is a {type(processor).__name__}, expected a VitaVideoProcessor")
    with _explained(f"the processor of {model}"):
        _check_processor(processor)
    return processor


def _check_processor(processor: VitaVideoProcessor) -> None:
    """Check the settings that transformers stores unchecked."""
    settings = processor.to_dict()

    def require(name: str, is_right: Callable[[Any], bool], expected: str):
        if not is_right(settings.get(name)):
            raise ValueError(f"{name}: expected {expected}, got {shorten(settings.get(name))}")

    def is_side(value: Any) -> bool:
        return type(value) is int and 0 < value <= _MAX_SIDE

    def is_size(value: Any) -> bool:
        return isinstance(value, Mapping) and all(is_side(side) for side in value.values())

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and abs(value) < _MAX_NUMBER

    def are_numbers(values: Any) -> bool:
        return isinstance(values, (list, tuple)) and len(values) == 3 and all(map(is_number, values))

    require("size", is_size, f"integers of 1 to {_MAX_SIDE}")
    require("size_divisor", is_side, f"an integer of 1 to {_MAX_SIDE}")
    require("image_mean", are_numbers, "three numbers")
    require("image_std", lambda value: are_numbers(value) and min(value) > 0, "three positive numbers")
    require("rescale_factor", lambda value: is_number(value) and value > 0, "a positive number")


def describe_model(model: str | Path) -> Any:
    """
    Describe a model's files by their content, to notice later that a directory holds another model.

    Returns:
        For a directory, file name → SHA-256; for a Hub id, the id.
    """
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    return {file.name: hash_content(file) for file in files}


def check_device(device: str | int) -> None:
    """Raise a ValueError if torch cannot use a device on this machine."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error).partition(". ")[0]
        raise ValueError(f"device {device!r} cannot be used on this machine: {reason}") from error


def no_such_model(model: str, error: OSError) -> str:
    """Say that a model is neither a directory nor available from the Hub, and which directory may be meant."""
    hint = did_you_mean(model, _neighbors(model))
    return f"{model}: there is no such directory{hint or f', and no such model of the Hub: {first_line(error)}'}"


def _neighbors(model: str | Path) -> list[str]:
    """List the model directories beside a path."""
    parent = Path(model).parent
    return [str(file.parent) for file in parent.glob("*/config.json")] if parent.is_dir() else []


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the error's name if the message alone would not do."""
    lines = str(error).strip().splitlines()[:1]
    explains_itself = isinstance(error, (ValueError, OSError, RuntimeError)) and lines
    return lines[0][:1000] if explains_itself else ": ".join([type(error).__name__, *lines])[:1000]


@contextmanager
def _explained(what: str) -> Generator[None]:
    """Let a loading error say in one line what could not be loaded, whatever transformers raises for a broken file."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{what} cannot be loaded: {first_line(error)}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{what} cannot be loaded: {first_line(error)}") from error


def _check_directory(model: str | Path, files: tuple[str, ...], complaint: str) -> None:
    if not str(model):
        raise ValueError("expected a model directory or Hub id, got an empty name")
    path = Path(model)
    if not path.is_dir():
        # A Hub id is a name, or an owner and a name.
        is_id = isinstance(model, str) and len(path.parts) <= 2 and model[:1] not in "/.~"
        if not is_id or path.exists():
            raise FileNotFoundError(f"no such model directory: {model}{did_you_mean(str(model), _neighbors(model))}")
    elif not any((path / file).is_file() for file in files):
        raise ValueError(f"{model} {complaint}")


__all__ = [
    "SHIPPED_MODEL",
    "check_device",
    "describe_model",
    "first_line",
    "load_config",
    "load_model",
    "load_processor",
    "no_such_model",
]

"""VITA video instance segmentation for Hugging Face Transformers.

Importing this package registers its classes with transformers' `Auto*` classes, and its pipeline as
`pipeline("video-instance-segmentation")`; [`VideoInstanceSegmentationPipeline`] has an example.
"""

import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = version("vita-hf")


def _runs_a_command() -> bool:
    """Tell whether this process is `vita-hf` or `python -m vita_hf`, for which `sys.argv` starts with "-m" here."""
    program = sys.argv[0] if sys.argv else ""
    return program == "-m" or Path(program).name.removesuffix(".exe") == "vita-hf"


# torch and transformers take seconds to import. The command answers --help first, and then imports this itself.
if TYPE_CHECKING or not _runs_a_command():
    from .registration import (
        VideoInstances,
        VideoInstanceSegmentationPipeline,
        VitaConfig,
        VitaForVideoInstanceSegmentation,
        VitaModel,
        VitaPreTrainedModel,
        VitaVideoProcessor,
        backbones,
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(".registration", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "VideoInstanceSegmentationPipeline",
    "VideoInstances",
    "VitaConfig",
    "VitaForVideoInstanceSegmentation",
    "VitaModel",
    "VitaPreTrainedModel",
    "VitaVideoProcessor",
    "backbones",
]

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vita_hf.conversion import load_original_checkpoint

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = ("r50", "swin", "r50_nowin")


class Golden:
    """The reference's numbers on one tiny model; see tests/golden/README.md."""

    def __init__(self, variant: str):
        self.folder = GOLDEN / variant
        self.tensors = load_file(self.folder / "golden.safetensors")
        self.json = json.loads((self.folder / "golden.json").read_text())

    def model(self):
        return load_original_checkpoint(self.folder / "model.pth", config_file=self.folder / "config.yaml")


@cache
def load_golden(variant: str) -> Golden:
    return Golden(variant)


@pytest.fixture(params=VARIANTS, scope="module")
def golden(request) -> Golden:
    return load_golden(request.param)


@pytest.fixture(scope="module")
def model(golden):
    """The variant's model in evaluation mode, converted once for a test file."""
    return golden.model().eval()


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)

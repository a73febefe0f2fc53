"""The reference's numbers, see tests/golden/README.md."""

import json
from functools import cache
from pathlib import Path

from safetensors.torch import load_file

from vita_hf.conversion.checkpoint import load_original_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"


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

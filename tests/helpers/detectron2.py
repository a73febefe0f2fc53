"""The tiny detectron2 configs and checkpoints in tests/golden."""

from helpers.golden import GOLDEN
from vita_hf.conversion.detectron2_config import read_detectron2_yaml

SWIN = {"weights": GOLDEN / "swin" / "model.pth", "config_file": GOLDEN / "swin" / "config.yaml"}


def settings(variant: str = "r50", **changes) -> dict:
    """A variant's config; `MODEL__VITA__NHEADS=…` replaces a value, None removes it."""
    cfg = read_detectron2_yaml(GOLDEN / variant / "config.yaml")
    for name, value in changes.items():
        *path, last = name.split("__")
        section = cfg
        for part in path:
            section = section[part]
        if value is None:
            section.pop(last)
        else:
            section[last] = value
    return cfg

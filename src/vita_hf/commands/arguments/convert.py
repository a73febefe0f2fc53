"""Arguments of `vita-hf convert`."""

import argparse

from . import RECIPES

_EXAMPLES = """examples:
  vita-hf convert vita_r50_ytvis2019.pth --recipe ytvis2019-r50 --output vita-r50-ytvis2019
  vita-hf convert model_final.pth --config output/config.yaml --output my-vita
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Convert an official VITA checkpoint (.pth) into a directory for `from_pretrained`."
    parser.epilog = _EXAMPLES
    add = parser.add_argument
    add("weights", help="the checkpoint: a .pth file of tensors and plain values")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--config", help="the detectron2 YAML that the checkpoint was trained with")
    network.add_argument("--recipe", metavar="NAME", help=f"in place of a YAML, one of: {', '.join(RECIPES)}")
    add("--output", required=True, help="directory to write; must be empty or not exist")
    add("--overwrite", action="store_true", help="replace a directory that holds a model")

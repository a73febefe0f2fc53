"""`vita-hf convert`: official checkpoints to directories for `from_pretrained`."""

import argparse

from ..conversion.checkpoint import convert_checkpoint
from ..recipes import list_recipes

_EXAMPLES = """examples:
  vita-hf convert vita_r50_ytvis2019.pth --recipe ytvis2019-r50 --output vita-r50-ytvis2019
  vita-hf convert model_final.pth --config output/config.yaml --output my-vita
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Convert an official VITA checkpoint (.pth) into a directory for `from_pretrained`."
    parser.epilog = _EXAMPLES
    parser.add_argument("weights", help="the checkpoint: a .pth file with tensors and plain values only")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--config", help="detectron2 YAML the checkpoint was trained with")
    network.add_argument("--recipe", metavar="NAME", help=f"instead of a YAML, one of: {', '.join(list_recipes())}")
    parser.add_argument("--output", required=True, help="directory to write; must not exist or be empty")
    parser.add_argument("--overwrite", action="store_true", help="replace an output directory that holds a model")


def run(args: argparse.Namespace) -> None:
    """Convert, and say where the result is."""
    output = convert_checkpoint(args.weights, args.output, args.config, args.recipe, args.overwrite)
    print(f"Written: {output}")

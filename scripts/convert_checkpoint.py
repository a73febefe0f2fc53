"""Convert an official VITA checkpoint (.pth) into a directory for `from_pretrained`."""

import argparse

from vita_hf.conversion import convert_checkpoint
from vita_hf.recipes import list_recipes

EXAMPLE = """example:
  python scripts/convert_checkpoint.py vita_r50_ytvis2019.pth --recipe ytvis2019-r50 --output vita-r50-ytvis2019
  python scripts/convert_checkpoint.py model_final.pth --config output/config.yaml --output my-vita
"""


def main() -> None:
    """Parse the arguments, convert, say where the result is."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="the checkpoint: a .pth file with tensors and plain values only")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--config", help="detectron2 YAML the checkpoint was trained with")
    network.add_argument("--recipe", metavar="NAME", help=f"instead of a YAML, one of: {', '.join(list_recipes())}")
    parser.add_argument("--output", required=True, help="directory to write; must not exist or be empty")
    parser.add_argument("--overwrite", action="store_true", help="replace an output directory that holds a model")
    args = parser.parse_args()
    try:
        output = convert_checkpoint(args.weights, args.output, args.config, args.recipe, args.overwrite)
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"Written: {output}")


if __name__ == "__main__":
    main()

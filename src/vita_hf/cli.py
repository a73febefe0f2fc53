"""The `vita-hf` command."""

import argparse

from .conversion import convert_checkpoint
from .recipes import list_recipes

_CONVERT_EXAMPLE = """examples:
  vita-hf convert vita_r50_ytvis2019.pth --recipe ytvis2019-r50 --output vita-r50-ytvis2019
  vita-hf convert model_final.pth --config output/config.yaml --output my-vita
"""


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `vita-hf convert` and of scripts/convert_checkpoint.py."""
    parser.description = "Convert an official VITA checkpoint (.pth) into a directory for `from_pretrained`."
    parser.epilog = _CONVERT_EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("weights", help="the checkpoint: a .pth file with tensors and plain values only")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--config", help="detectron2 YAML the checkpoint was trained with")
    network.add_argument("--recipe", metavar="NAME", help=f"instead of a YAML, one of: {', '.join(list_recipes())}")
    parser.add_argument("--output", required=True, help="directory to write; must not exist or be empty")
    parser.add_argument("--overwrite", action="store_true", help="replace an output directory that holds a model")
    parser.set_defaults(run=convert)


def convert(args: argparse.Namespace) -> None:
    """Convert, and say where the result is."""
    output = convert_checkpoint(args.weights, args.output, args.config, args.recipe, args.overwrite)
    print(f"Written: {output}")


def main(argv: list[str] | None = None) -> None:
    """Run a subcommand; what a user can mend is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog="vita-hf", description="Video instance segmentation with VITA.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_convert_arguments(commands.add_parser("convert", help="official checkpoint → directory for from_pretrained"))
    run(parser, argv)


def run(parser: argparse.ArgumentParser, argv: list[str] | None) -> None:
    """Parse and run; the errors that the package raises for wrong input end in a sentence, not in a traceback."""
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()

"""The `vita-hf` command."""

import argparse
import importlib
import logging
import sys

from transformers.utils.logging import disable_progress_bar

from . import EXPECTED_ERRORS, describe_error

# A command is the module of its name in this package. Only the chosen one is imported: some need optional packages.
COMMANDS = {
    "demo": "segment and score a synthetic video with the shipped model",
    "predict": "segment videos: overlay video, tracks as json, contact sheet",
    "web": "segment videos on a web page",
    "info": "describe a model: classes, sizes, backbone, parameters, training data",
    "convert": "convert an official checkpoint into a directory for from_pretrained",
    "train": "train a model with a recipe",
    "evaluate": "run a model over a dataset split, score it or make a submission",
}
EXTRAS = {"train": "train", "evaluate": "eval"}  # the extra of this package that a command needs

_EXAMPLES = """examples:
  vita-hf demo                                          a synthetic video, segmented and scored, in demo/
  vita-hf predict clip.mp4                              with the shipped model, which knows only synthetic shapes
  vita-hf predict clip.mp4 --model vita-r50-ytvis2019   overlay video, tracks as json and contact sheet, in out/clip
  vita-hf info vita-r50-ytvis2019                       what a model can do

`vita-hf COMMAND --help` describes a command's options.
"""


def main(argv: list[str] | None = None) -> None:
    """Run a command. An error that the user can fix is reported in one sentence, with exit code 1."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="vita-hf",
        description="Segment and track every object through videos, with VITA.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if argv[:1] == [name]:
            try:
                module = importlib.import_module(f".{name}", __package__)
            except ModuleNotFoundError as error:
                hint = f": pip install vita-hf[{EXTRAS[name]}]" if name in EXTRAS else ""
                parser.exit(1, f"error: vita-hf {name} needs the package {error.name}{hint}\n")
            module.add_arguments(command)
            command.set_defaults(run=module.run, argv=argv)
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    disable_progress_bar()  # transformers shows one for loading weights
    try:
        if code := args.run(args):
            sys.exit(code)
    except EXPECTED_ERRORS as error:
        parser.exit(1, f"error: {describe_error(error)}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted\n")

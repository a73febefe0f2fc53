"""The `vita-hf` command."""

import argparse
import importlib
import logging
import os
import sys
from io import TextIOWrapper

from .. import __version__

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

_EXAMPLES = """examples:
  vita-hf demo                                          a synthetic video, segmented and scored, in demo/
  vita-hf predict clip.mp4                              with the shipped model, which knows only synthetic shapes
  vita-hf predict clip.mp4 --model vita-r50-ytvis2019   overlay video, tracks as json and contact sheet, in out/clip
  vita-hf info vita-r50-ytvis2019                       what a model can do

`vita-hf COMMAND --help` describes a command's options.
"""


def main(argv: list[str] | None = None) -> None:
    """Run a command. An error that the user can fix is reported in one sentence, with exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # The terminal or pipe may lack characters of a name; a log shows each line at once.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # as in `vita-hf … | head`: end like other commands
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
        code = 141
    if code:
        sys.exit(code)


def _run(argv: list[str]) -> int | None:
    parser = argparse.ArgumentParser(
        prog="vita-hf",
        description="Segment and track every object through videos, with VITA.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vita-hf {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if argv[:1] == [name]:
            importlib.import_module(f".arguments.{name}", __package__).add_arguments(command)
    args = parser.parse_args(argv)
    args.argv = argv

    # Only now what takes seconds to import.
    importlib.import_module("..registration", __package__)
    errors = importlib.import_module(".errors", __package__)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # it warns of what nobody needs to change
    importlib.import_module("transformers.utils.logging").disable_progress_bar()  # shown while weights are loaded
    try:
        return importlib.import_module(f".{args.command}", __package__).run(args)
    except BrokenPipeError:
        raise
    except errors.EXPECTED_ERRORS as error:
        print(f"error: {errors.describe_error(error)}", file=sys.stderr)
        return 1

"""The `vita-hf` command."""

import argparse
import logging
import sys

from transformers.utils.logging import disable_progress_bar

from . import EXPECTED_ERRORS, convert, demo, describe_error, info, predict

COMMANDS = {"demo": demo, "predict": predict, "info": info, "convert": convert}

_EXAMPLES = """examples:
  vita-hf demo                                          a synthetic video, segmented and scored, in demo/
  vita-hf predict clip.mp4                              with the shipped model, which knows only synthetic shapes
  vita-hf predict clip.mp4 --model vita-r50-ytvis2019   overlay video, tracks as json and contact sheet, in out/clip
  vita-hf info vita-r50-ytvis2019                       what a model can do

vita-hf COMMAND --help tells more.
"""


def main(argv: list[str] | None = None) -> None:
    """Run a subcommand; what a user can mend is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="vita-hf",
        description="Segment and track every object through videos, with VITA.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    disable_progress_bar()  # transformers', of loading weights
    try:
        code = args.run(args)
    except EXPECTED_ERRORS as error:
        parser.exit(1, f"error: {describe_error(error)}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted\n")
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()

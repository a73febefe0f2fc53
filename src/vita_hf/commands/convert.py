"""`vita-hf convert`: convert an official checkpoint into a directory for `from_pretrained`."""

import argparse

from ..conversion import convert_checkpoint


def run(args: argparse.Namespace) -> None:
    output = convert_checkpoint(args.weights, args.output, args.config, args.recipe, args.overwrite)
    print(f"Written: {output}")

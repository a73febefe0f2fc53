"""Arguments of `vita-hf info`."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Describe a model from its configuration and model card, without loading its weights."
    parser.add_argument("model", help="directory or Hub id")

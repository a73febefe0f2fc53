"""`vita-hf train`: train a model with a recipe."""

import argparse
import logging
import os
import sys
import warnings
from dataclasses import fields

from ..training.launch import launch_command
from ..training.options import TrainingOptions
from ..training.run import train
from ..training.signals import TrainingInterrupted
from .arguments.train import add_launch_arguments


def run(args: argparse.Namespace) -> int | None:
    """Launch the training, or, in a launched process, train."""
    if args.accelerate_config is not None:
        parser = argparse.ArgumentParser(add_help=False)
        add_launch_arguments(parser)
        _, arguments = parser.parse_known_args(args.argv)
        command = launch_command(args.accelerate_config, arguments, args.num_processes)
        os.execv(command[0], command)
    if args.num_processes is not None:
        raise ValueError("--num-processes: expected --accelerate-config")
    is_main_process = os.environ.get("RANK", "0") == "0"
    # DDP's layout of gradients is not ours to choose.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    logging.getLogger("vita_hf").setLevel(logging.INFO if is_main_process else logging.ERROR)
    try:
        train(read_options(args))
    except TrainingInterrupted as interruption:
        print(interruption, file=sys.stderr)
        return 1
    return None


def read_options(args: argparse.Namespace) -> TrainingOptions:
    """Take the options of the training from the parsed arguments."""
    return TrainingOptions(**{field.name: getattr(args, field.name) for field in fields(TrainingOptions)})

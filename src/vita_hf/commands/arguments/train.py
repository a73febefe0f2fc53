"""Arguments of `vita-hf train`."""

import argparse
import os
from pathlib import Path

from ...training.options import TrainingOptions
from . import RECIPES

_DESCRIPTION = """Train a model with a recipe, and write a directory for `from_pretrained`.

After an interruption, the same command continues from the newest checkpoint, with the same result as an uninterrupted
training. The command runs alone, under `accelerate launch`, or launches itself with --accelerate-config.
"""

_EXAMPLES = """examples:
  vita-hf train --recipe ytvis2019-r50 --init vita-r50-coco --data-root data --output runs/ytvis2019-r50
  vita-hf train --accelerate-config several_gpus --recipe ytvis2019-r50 --init vita-r50-coco --data-root data \\
      --output runs/ytvis2019-r50
  vita-hf train --recipe ytvis2019-r50 --init facebook/mask2former-swin-tiny-coco-instance --output runs/mine \\
      --train-json my.json --train-images frames --eval-json val.json --eval-images frames \\
      --set training.steps=20000 "training.learning_rate_steps=[15000]"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    add = parser.add_argument
    add("--recipe", required=True, help=f"a .yaml file, or one of {', '.join(RECIPES)}")
    add("--set", nargs="+", default=[], dest="overrides", metavar="SECTION.KEY=VALUE", help="replace recipe values")
    add("--init", help="'scratch', 'backbone', or a directory or Hub id of a VITA or Mask2Former model")
    add("--output", type=Path, required=True, help="directory for the model, its checkpoints and its log")

    add = parser.add_argument_group("data", "either the datasets that the recipe names, or your own").add_argument
    add("--data-root", type=Path, help="directory with ytvis_2019/, ytvis_2021/, ovis/ and coco/ as unpacked")
    add("--train-json", type=Path, help="annotations in YouTube-VIS format (for COCO recipes in COCO format)")
    add("--train-images", type=Path, help="directory that its file names are relative to")
    add("--train-parquet", metavar="DIR_OR_ID", help="output of scripts/prepare_dataset.py, here or on the Hub")
    add("--streaming", action="store_true", help="read the Parquet files while training")
    add("--eval-json", type=Path, help="annotations to score the model against")
    add("--eval-images", type=Path, help="directory that its file names are relative to")
    add("--follow-links", action="store_true", help="accept frames that symbolic links lead out of their directory")
    add("--skip-broken", action="store_true", help="skip, count and log videos that cannot be read")

    add = parser.add_argument_group("run").add_argument
    for name, meaning in {
        "micro_batches": "forward passes per step, to accumulate gradients",
        "workers": "processes that load clips, for each training process",
        "log_every": "steps between log entries",
        "checkpoint_every": "steps between checkpoints",
        "keep": "checkpoints to keep",
        "evaluate_every": "steps between evaluations; 0: only at the end",
    }.items():
        default = getattr(TrainingOptions, name)
        if name == "micro_batches":  # `accelerate launch --gradient_accumulation_steps` sets the variable
            default = int(os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", default))
        option = f"--{name.replace('_', '-')}"
        add(option, type=int, default=default, metavar="N", help=f"{meaning} (default: {default})")
    add("--gradient-checkpointing", action="store_true", help="less memory, more time")
    add("--overwrite", action="store_true", help="remove an earlier run from --output")
    add("--report-to", metavar="TRACKER", help="a tracker that Accelerate knows, such as tensorboard or wandb")
    add("--push-to-hub", metavar="REPO", help="upload the finished model")
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    add_launch_arguments(parser.add_argument_group("launch"))


def add_launch_arguments(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    add("--accelerate-config", metavar="CONFIG", help="one_gpu, several_gpus, fsdp, cpu, or a YAML file of your own")
    add("--num-processes", type=int, metavar="N", help="processes (default: the config's, or the GPUs)")

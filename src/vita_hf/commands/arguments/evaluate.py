"""Arguments of `vita-hf evaluate`."""

import argparse
from pathlib import Path

_DESCRIPTION = """Run a model over a split of YouTube-VIS, OVIS or COCO, and score it if the split has annotations.

Writes results.json, submission.zip (videos only) and scores.json to OUTPUT. After an interruption, the same command
continues where it stopped. Under `accelerate launch` any number of processes share the work and the output directory.
"""

_EXAMPLES = """examples:
  vita-hf evaluate --model vita-r50-ytvis2019 --output out \\
      --annotations ytvis_2019/valid.json --images ytvis_2019/valid/JPEGImages
  accelerate launch --multi_gpu --num_processes 4 -m vita_hf evaluate --model …
  vita-hf evaluate --annotations split.json --results out/results.json --worst 10
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    add = parser.add_argument
    add("--annotations", type=Path, required=True, help="json of YouTube-VIS, OVIS or COCO instances")
    add("--model", help="directory or Hub id")
    add("--images", type=Path, help="folder that the file names of the frames are relative to")
    add("--follow-links", action="store_true", help="accept frames that symbolic links in --images lead out of it")
    add("--output", type=Path, help="directory to write to")
    add("--results", type=Path, help="score this results.json instead of running a model")
    add("--top-k", type=int, metavar="K", help="predictions per video or image (default: the model's)")
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    add("--worst", type=int, default=0, metavar="N", help="list the N videos with the lowest AP, too")
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")

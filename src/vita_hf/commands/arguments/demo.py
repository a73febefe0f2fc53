"""Arguments of `vita-hf demo`."""

import argparse
from pathlib import Path

_DESCRIPTION = """Make a synthetic video, segment it with the shipped tiny model, and score the result.

Needs neither a network nor a GPU. Writes to OUTPUT, completely or not at all:
  video.mp4          the video
  truth.json         its ground truth in YouTube-VIS format
  overlay.mp4        the video with masks, labels and track ids
  contact_sheet.png  some frames, and a timeline of the tracks
  results.json       the tracks, for VideoInstances.from_json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    add = parser.add_argument
    add("-o", "--output", type=Path, default=Path("demo"), help="directory to write (default: demo)")
    add("--seed", type=int, default=2, help="another seed gives another video (default: 2)")
    add("--length", type=int, default=40, help="number of frames (default: 40)")
    add("--overwrite", action="store_true", help="replace an earlier demo")

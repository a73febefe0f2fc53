"""Arguments of `vita-hf predict`."""

import argparse
from pathlib import Path
from typing import get_args

from ...inference.options import Decoder, MaskFeatures, SegmentationOptions
from ...video.download import MAX_BYTES

_DESCRIPTION = """Segment and track every object through videos of any length.

For each video a folder OUTPUT/NAME appears as soon as it is complete:
  overlay.mp4        the video with masks, labels and track ids
  results.json       the tracks: scores, labels, ids, masks as compressed RLE (read by VideoInstances.from_json)
  contact_sheet.png  some frames, and a timeline that shows when each track is visible
  all_tracks.json    the same with all tracks that were kept, from which --threshold and --classes choose
  run.json           what the folder was made from; a second call skips finished videos

NAME is the name of the file or folder, without .mp4: clip for clip.mp4, clip.mov for clip.mov. A second call with
another --threshold (from 0.05) or --classes only draws again: it needs neither the model nor --overwrite.
"""

_EXAMPLES = """examples:
  vita-hf predict clip.mp4 --model vita-r50-ytvis2019
  vita-hf predict frames/ other.mov https://host/clip.mp4 --model vita-r50-ytvis2019 -o tracks
  vita-hf predict talk.mp4 --fps 5 --max-frames 500 --threshold 0.5 --classes person "teddy bear"
  vita-hf predict long.mp4 --dtype bfloat16 --mask-features disk

A folder of images is one video. A folder of videos stands for all videos and folders of images in it; what is left out
is named. Under accelerate or torchrun, processes (GPUs) share the videos:
  accelerate launch --multi_gpu --num_processes 4 -m vita_hf predict videos/ --model vita-r50-ytvis2019
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="video file, folder or URL")
    add("--model", help="directory or Hub id; by default the shipped model, which knows only synthetic shapes")
    add("-o", "--output", type=Path, default=Path("out"), help="directory to write to (default: out)")
    add("--overwrite", action="store_true", help="replace the files above, if they were made with other settings")
    add("--json-only", action="store_true", help="write only results.json, no pictures")
    largest = "the largest video to download (default: %(default)g)"
    add("--max-download", type=float, default=MAX_BYTES / 2**30, metavar="GIB", help=largest)

    add = parser.add_argument_group("tracks").add_argument
    add("--threshold", type=float, default=SegmentationOptions.threshold, help="lowest score (default: %(default)s)")
    add("--top-k", type=int, metavar="K", help="the maximum number of tracks of a video (default: all)")
    add(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="report only tracks of these classes, for example: clip.mp4 --classes person dog",
    )
    several_labels = "allow several labels per track: the rule for metrics, together with --threshold 0 --top-k 10"
    add("--several-labels", dest="one_label_per_query", action="store_false", help=several_labels)

    frames = parser.add_argument_group("frames")
    rate = frames.add_mutually_exclusive_group()
    rate.add_argument("--fps", type=float, help="use this many frames per second")
    rate.add_argument("--stride", type=int, metavar="N", help="use every N-th frame")
    add = frames.add_argument
    add("--max-frames", type=int, metavar="N", help="use at most N frames")
    add("--frame-rate", type=float, metavar="FPS", help="frames per second of folders of images (overlays: 10)")
    add("--strict", action="store_true", help="refuse damaged video files, instead of using what can be decoded")
    add("--decoder", choices=get_args(Decoder), help="decoder of video files (default: the processor's)")

    add = parser.add_argument_group("speed and memory").add_argument
    add("--device", help="cpu, cuda, cuda:1, mps … (default: a GPU if there is one)")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    add("--compile", action="store_true", help="compile the detector: pays for many or long videos")
    add("--chunk-size", type=int, metavar="N", help="frames that the detector processes at once (default: the model's)")
    kept = "where to keep mask features: host and disk round them, recompute takes a second pass (default: %(default)s)"
    add("--mask-features", choices=get_args(MaskFeatures), default=SegmentationOptions.mask_features, help=kept)

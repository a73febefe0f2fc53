"""`vita-hf predict`: videos to overlays, json and contact sheets."""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

import torch

from ..files import write_atomically
from ..inference.loading import SHIPPED_MODEL, describe_model, load_model
from ..inference.mask_feature_stores import MODES
from ..pipeline_vita import VideoInstanceSegmentationPipeline
from ..tracks.instances import VideoInstances
from ..video.sources import VIDEO_SUFFIXES, is_url, list_frames, open_video
from . import EXPECTED_ERRORS, describe_error

_DESCRIPTION = """Segment and track every object through videos, of any length.

For each video a folder OUTPUT/NAME is written, once all of it is done:
  overlay.mp4        the video with masks, labels and track ids
  results.json       the tracks: scores, labels, ids, masks as run lengths (read by VideoInstances.from_json)
  contact_sheet.png  some frames, and a time line of which track is seen when
  run.json           what this was made from; a second call skips what is there already
"""

_EXAMPLES = """examples:
  vita-hf predict clip.mp4 --model vita-r50-ytvis2019
  vita-hf predict frames/ other.mov https://host/clip.mp4 --model vita-r50-ytvis2019 -o tracks
  vita-hf predict talk.mp4 --fps 5 --max-frames 500 --threshold 0.5
  vita-hf predict long.mp4 --dtype bfloat16 --mask-features disk

A folder is one video if it holds images, or else all the videos and folders of images in it. They are shared out over
processes (GPUs) under accelerate or torchrun:
  accelerate launch --multi_gpu --num_processes 4 -m vita_hf predict videos/ --model vita-r50-ytvis2019
"""


class Video(NamedTuple):
    """What is to be segmented, and under which name."""

    name: str
    path: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video file, folder or http(s) address")
    parser.add_argument(
        "--model", help="directory or Hub id; by default the shipped model, which knows only synthetic shapes"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="directory to write to (default: out)")
    parser.add_argument("--overwrite", action="store_true", help="replace results of other settings")
    parser.add_argument("--json-only", action="store_true", help="write no pictures, only results.json")

    found = parser.add_argument_group("what is found")
    found.add_argument("--threshold", type=float, default=0.3, help="lowest score of a track (default: 0.3)")
    found.add_argument("--top-k", type=int, metavar="K", help="the most tracks of a video (default: all)")
    found.add_argument(
        "--several-labels",
        action="store_true",
        help="a track may have several labels: the rule for metrics, there with --threshold 0 --top-k 10",
    )

    used = parser.add_argument_group("which frames")
    thinned = used.add_mutually_exclusive_group()
    thinned.add_argument("--fps", type=float, help="use so many frames a second")
    thinned.add_argument("--stride", type=int, metavar="N", help="use every N-th frame")
    used.add_argument("--max-frames", type=int, metavar="N", help="use at most N frames")

    how = parser.add_argument_group("how")
    how.add_argument("--device", help="cpu, cuda, cuda:1, mps … (default: a GPU if there is one)")
    how.add_argument("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    how.add_argument("--compile", action="store_true", help="compile the detector: pays for many or long videos")
    how.add_argument(
        "--chunk-size", type=int, metavar="N", help="frames the detector takes at once (default: the model's)"
    )
    how.add_argument(
        "--mask-features",
        choices=MODES,
        default="auto",
        help="where they wait until masks are computed: device and recompute (a second pass) are exact, host and "
        "disk round to half precision, auto takes the first that has room (default: auto)",
    )
    how.add_argument("--decoder", choices=["pyav", "torchcodec"], help="of video files (default: the processor's)")


def run(args: argparse.Namespace) -> int:
    """Segment this process's share of the videos; the exit code is 1 if any of them failed."""
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.output.exists() and not args.output.is_dir():
        raise NotADirectoryError(f"the output directory {args.output} is a file")
    videos = find_videos(args.videos)
    model = args.model or shipped_model(quiet=rank > 0)
    record = {"model": describe_model(model), **describe_settings(args)}

    todo = []
    for video in videos[rank::processes]:
        if is_finished(args.output / video.name, record | describe_video(video), args.overwrite):
            print(f"{video.name}: finished before, skipped ({args.output / video.name})")
        else:
            todo.append(video)
    if not todo:
        return 0

    loaded, processor = load_model(model, dtype=args.dtype)
    segmenter = VideoInstanceSegmentationPipeline(
        loaded,
        processor,
        device=args.device or default_device(),
        compile=args.compile,
        progress=None if rank == 0 else False,
    )
    failed = []
    for video in todo:
        try:
            result = segment(segmenter, video, args, record | describe_video(video))
        except EXPECTED_ERRORS as error:
            print(f"error: {describe_error(error)}", file=sys.stderr)
            failed.append(video)
        else:
            describe(video, result, args.output / video.name)
    if failed and len(todo) > 1:
        print(f"{len(failed)} of {len(todo)} videos failed", file=sys.stderr)
    return 1 if failed else 0


def segment(
    segmenter: VideoInstanceSegmentationPipeline, video: Video, args: argparse.Namespace, record: dict[str, Any]
) -> VideoInstances:
    """Segment one video and write its folder, whole or not at all."""
    # Opened once: what is behind an address is downloaded once.
    source = open_video(video.path, video.path, args.decoder or segmenter.video_processor.decoder)
    result = segmenter(
        source,
        fps=args.fps,
        stride=args.stride,
        max_frames=args.max_frames,
        threshold=args.threshold,
        top_k=args.top_k,
        one_label_per_query=not args.several_labels,
        mask_features=args.mask_features,
        chunk_size=args.chunk_size,
    )
    folder, unfinished = args.output / video.name, args.output / f".{video.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # a killed run's
    try:
        unfinished.mkdir(parents=True)
        result.to_json(unfinished / "results.json")
        if not args.json_only:
            result.render(source, unfinished / "overlay.mp4")
            result.plot(source, unfinished / "contact_sheet.png")
        write_atomically(unfinished / "run.json", json.dumps(record, indent=2).encode())
        if folder.is_dir():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return result


def describe(video: Video, result: VideoInstances, folder: Path) -> None:
    """Print what was found."""
    print(f"{video.name}: {len(result)} tracks in {result.num_frames} frames, written to {folder}")
    for track, label, score in zip(result.track_ids.tolist(), result.label_names, result.scores.tolist()):
        print(f"  #{track} {label} {score:.2f}")


def find_videos(arguments: list[str]) -> list[Video]:
    """
    Find the videos that arguments name, each with a name of its own.

    Raises:
        FileNotFoundError: An argument doesn't exist.
        ValueError: A folder has no videos, or two videos would get the same name.
    """
    paths: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if is_url(argument):
            paths.append(argument)
        elif not path.exists():
            raise FileNotFoundError(f"no such video: {argument}")
        elif path.is_dir() and not list_frames(path):
            inside = [
                str(item)
                for item in sorted(path.iterdir())
                if item.name[0] != "."
                and (list_frames(item) if item.is_dir() else item.suffix.lower() in VIDEO_SUFFIXES)
            ]
            if not inside:
                raise ValueError(f"the folder {argument} holds no images, no videos and no folders of images")
            paths += inside
        else:
            paths.append(argument)
    paths = list(dict.fromkeys(paths))
    plain = [_parts(path)[-1].rpartition(".")[0] or _parts(path)[-1] for path in paths]
    # Where names collide, with the ending and the folder.
    names = [name if plain.count(name) == 1 else "-".join(_parts(path)[-2:]) for name, path in zip(plain, paths)]
    for name in names:
        if names.count(name) > 1:
            same = [path for path, other in zip(paths, names) if other == name]
            raise ValueError(f"{' and '.join(same)} would both be written to {name}: pass them in calls of their own")
    return [Video(name, path) for name, path in zip(names, paths)]


def _parts(path: str) -> list[str]:
    """The folder's and the file's name."""
    if is_url(path):
        address = urlparse(path)
        return [address.netloc, Path(unquote(address.path)).name or "video"]
    return list(Path(path).resolve().parts)


def describe_video(video: Video) -> dict[str, Any]:
    """What tells that a video has changed."""
    if is_url(video.path):
        return {"video": video.path}
    path = Path(video.path).resolve()
    files = list_frames(path) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return {
        "video": str(path),
        "files": len(stats),
        "bytes": sum(stat.st_size for stat in stats),
        "changed": max(stat.st_mtime_ns for stat in stats),
    }


def describe_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that results depend on."""
    names = ("threshold", "top_k", "several_labels", "fps", "stride", "max_frames", "dtype", "json_only")
    return {name: getattr(args, name) for name in names}


def is_finished(folder: Path, record: dict[str, Any], overwrite: bool) -> bool:
    """
    Whether a video's folder is there, made from the same.

    Raises:
        FileExistsError: It is there, made from something else, and not to be overwritten.
    """
    if not folder.exists():
        return False
    file = folder / "run.json"
    before = json.loads(file.read_text()) if file.is_file() else None
    if before == record:
        return True
    if before is None:
        raise FileExistsError(f"{folder} is there and was not written by vita-hf predict: choose another --output")
    if overwrite:
        return False
    changed = sorted(key for key in before.keys() | record.keys() if before.get(key) != record.get(key))
    raise FileExistsError(
        f"{folder} holds results of another run ({', '.join(changed)} differ): choose another --output, or --overwrite"
    )


def shipped_model(quiet: bool) -> Path:
    """
    The model to use where none is named.

    Raises:
        FileNotFoundError: This installation has none.
    """
    if not (SHIPPED_MODEL / "config.json").is_file():
        raise FileNotFoundError("no --model was given, and none is shipped with this installation")
    if not quiet:
        print("No --model given: using the shipped tiny model, which knows only the shapes of its synthetic videos.")
    return SHIPPED_MODEL


def default_device() -> str:
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "mps" if torch.backends.mps.is_available() else "cpu"

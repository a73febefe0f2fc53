"""`vita-hf predict`: videos to overlays, json and contact sheets."""

import argparse
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ..files import RunRecord, atomic_directory
from ..inference.loading import SHIPPED_MODEL, describe_model, load_model
from ..inference.offline import segment_video
from ..inference.options import SegmentationOptions
from ..pipeline_vita import VideoInstanceSegmentationPipeline
from ..video.download import is_url
from ..video.images import list_frames
from ..video.reader import VIDEO_SUFFIXES
from ..video.sources import open_video
from .errors import EXPECTED_ERRORS, describe_error


def run(args: argparse.Namespace) -> int:
    """Segment this process's share of the videos. The exit code is 1 if any of them failed."""
    rank, num_processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.output.exists() and not args.output.is_dir():
        raise NotADirectoryError(f"the output directory {args.output} is a file")
    names = [field.name for field in fields(SegmentationOptions) if field.name != "progress"]
    settings = {name: getattr(args, name) for name in names}
    options = SegmentationOptions(**settings, progress=None if rank == 0 else False)
    videos = find_videos(args.videos)
    if args.model is None and rank == 0:
        print("No --model given: using the shipped tiny model, which knows only the shapes of its synthetic videos.")
    model = args.model or SHIPPED_MODEL
    inputs = {"model": describe_model(model), "dtype": args.dtype, "json_only": args.json_only, **settings}
    del inputs["chunk_size"]  # does not change results

    unfinished = []
    for name in list(videos)[rank::num_processes]:
        folder = args.output / name
        record = RunRecord(folder / "run.json", {**inputs, **describe_video(videos[name])})
        if is_finished(record, args.overwrite):
            print(f"{name}: already finished, skipped ({folder})")
        else:
            unfinished.append(record)
    if not unfinished:
        return 0

    loaded, processor = load_model(model, dtype=args.dtype)
    device = args.device or int(os.environ.get("LOCAL_RANK", 0))  # transformers picks the kind of device
    segmenter = VideoInstanceSegmentationPipeline(loaded, processor, device=device, compile=args.compile)
    failures = 0
    for record in unfinished:
        try:
            segment(segmenter, videos[record.path.parent.name], options, record)
        except EXPECTED_ERRORS as error:
            print(f"error: {describe_error(error)}", file=sys.stderr)
            failures += 1
    if failures and len(unfinished) > 1:
        print(f"{failures} of {len(unfinished)} videos failed", file=sys.stderr)
    return 1 if failures else 0


def segment(
    segmenter: VideoInstanceSegmentationPipeline, video: str, options: SegmentationOptions, record: RunRecord
) -> None:
    """Segment one video, write its folder, which appears when it is complete, and print the tracks."""
    # Opened once: an address is downloaded only once.
    source = open_video(video, decoder=options.decoder or segmenter.video_processor.decoder)
    result = segment_video(segmenter.model, segmenter.video_processor, source, options)
    output = record.path.parent
    with atomic_directory(output) as folder:
        result.to_json(folder / "results.json")
        if not record.inputs["json_only"]:
            result.render(source, folder / "overlay.mp4", contact_sheet=folder / "contact_sheet.png")
        replace(record, path=folder / record.path.name).write()
    print(f"{output.name}: {len(result)} tracks in {result.num_frames} frames, written to {output}")
    for track, label, score in zip(result.track_ids.tolist(), result.label_names, result.scores.tolist()):
        print(f"  #{track} {label} {score:.2f}")


def find_videos(arguments: list[str]) -> dict[str, str]:
    """
    Find the videos that the arguments stand for.

    Returns:
        The paths or addresses, by the name of the folder of results.

    Raises:
        FileNotFoundError: if an argument does not exist.
        ValueError: if a folder holds no videos, or two videos would get the same name.
    """
    paths: list[str] = []
    for argument in arguments:
        if not is_url(argument) and not Path(argument).exists():
            raise FileNotFoundError(f"no such video: {argument}")
        if is_url(argument) or not Path(argument).is_dir() or list_frames(Path(argument)):
            paths.append(argument)
        elif videos := [str(item) for item in sorted(Path(argument).iterdir()) if _is_video(item)]:
            paths += videos
        else:
            raise ValueError(f"the folder {argument} holds no images, no videos and no folders of images")
    paths = list(dict.fromkeys(paths))
    stems = [_parts(path)[-1].rpartition(".")[0] or _parts(path)[-1] for path in paths]
    # Videos with the same stem get names with suffix and folder.
    names = [stem if stems.count(stem) == 1 else "-".join(_parts(path)[-2:]) for stem, path in zip(stems, paths)]
    for name in names:
        if names.count(name) > 1:
            same = [path for path, other in zip(paths, names) if other == name]
            raise ValueError(f"{' and '.join(same)} would both be written to {name}: pass them in separate calls")
    return dict(zip(names, paths))


def _is_video(path: Path) -> bool:
    if path.name[0] == ".":
        return False
    return bool(list_frames(path)) if path.is_dir() else path.suffix.lower() in VIDEO_SUFFIXES


def _parts(path: str) -> list[str]:
    """Split a path, or the host and file name of an address, into its components."""
    if is_url(path):
        address = urlparse(path)
        return [address.netloc, Path(unquote(address.path)).name or "video"]
    return list(Path(path).resolve().parts)


def describe_video(video: str) -> dict[str, Any]:
    """Describe a video's files by number, size and modification time, to notice later that they have changed."""
    if is_url(video):
        return {"video": video}
    path = Path(video).resolve()
    stats = [file.stat() for file in (list_frames(path) if path.is_dir() else [path])]
    size, changed = sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)
    return {"video": str(path), "files": len(stats), "bytes": size, "changed": changed}


def is_finished(record: RunRecord, overwrite: bool) -> bool:
    """Tell whether a video's folder has results of the same inputs; refuse to replace anything but old results."""
    folder, changes = record.path.parent, record.changes()
    if changes is None and folder.exists():
        raise FileExistsError(f"{folder} exists and was not written by vita-hf predict: choose another --output")
    return False if changes and overwrite else record.matches()

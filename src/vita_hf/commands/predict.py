"""`vita-hf predict`: videos to overlays, json and contact sheets."""

import argparse
import hashlib
import json
import math
import os
import sys
import unicodedata
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote, urlparse

from ..files import UNFINISHED, RunRecord, check_space, check_writable, hash_content, output_name, replace_files
from ..inference.loading import SHIPPED_MODEL, check_device, describe_model, load_model
from ..inference.offline import segment_video
from ..inference.options import LOWEST_SCORE, SegmentationOptions
from ..pipeline_vita import VideoInstanceSegmentationPipeline
from ..text import counted
from ..tracks.instances import VideoInstances
from ..tracks.labels import label_indices
from ..video.download import MAX_BYTES, download, is_url, shown
from ..video.images import list_frames
from ..video.reader import import_av
from ..video.sources import list_videos, open_video, refuse_live_sources
from .errors import EXPECTED_ERRORS, describe_error

RESULTS, PICTURES, RECORD = "results.json", ("overlay.mp4", "contact_sheet.png"), "run.json"
ALL_TRACKS = "all_tracks.json"  # with those that were not chosen; written where there are any


def run(args: argparse.Namespace) -> int:
    """Segment this process's share of the videos. The exit code is 1 if any of them failed."""
    rank, num_processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    check_writable(args.output)
    if not 0 < args.max_download < math.inf:
        raise ValueError(f"--max-download: expected a positive number of GiB, got {args.max_download}")
    max_bytes = round(args.max_download * 2**30)
    if not args.json_only:
        _check_drawing()
    names = [field.name for field in fields(SegmentationOptions) if field.name != "progress"]
    settings = {name: getattr(args, name) for name in names}
    options = SegmentationOptions(**settings, progress=rank == 0)
    videos = find_videos(args.videos)
    if args.model is None and rank == 0:
        print("No --model given: using the shipped tiny model, which knows only the shapes of its synthetic videos.")
    model = SHIPPED_MODEL if args.model is None else args.model
    if args.device is not None:
        check_device(args.device)
    inputs = {"model": describe_model(model), "dtype": args.dtype, "json_only": args.json_only, **settings}
    del inputs["chunk_size"]  # does not change results
    if not args.strict:
        del inputs["strict"]  # as in records of earlier versions
    inputs["lowest_score"] = _options_of_all_tracks(options).threshold

    unfinished = {}
    for name in list(videos)[rank::num_processes]:
        state = find_state(args.output / name, videos[name], inputs, args.overwrite, max_bytes)
        if state == "finished":
            print(f"{name}: already finished, skipped ({args.output / name})")
        else:
            check_writable(args.output / name)
            unfinished[name] = state
    segmenter = _load(args, model, options) if "missing" in unfinished.values() else None
    failed = []
    for name, state in unfinished.items():
        try:
            network = segmenter if state == "missing" else None
            segment(network, videos[name], options, args.output / name, inputs, max_bytes)
        except BrokenPipeError:
            raise
        except EXPECTED_ERRORS as error:
            print(f"error: {describe_error(error)}", file=sys.stderr)
            failed.append(name)
    if failed and len(unfinished) > 1:
        print(f"{len(failed)} of {len(unfinished)} videos failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _load(
    args: argparse.Namespace, model: str | Path, options: SegmentationOptions
) -> VideoInstanceSegmentationPipeline:
    loaded, processor = load_model(model, dtype=args.dtype)
    label_indices(options.classes or (), loaded.config.id2label)  # fails before the first video
    device = args.device or int(os.environ.get("LOCAL_RANK", 0))  # transformers picks the kind of device
    return VideoInstanceSegmentationPipeline(loaded, processor, device=device, compile=args.compile)


def _options_of_all_tracks(options: SegmentationOptions) -> SegmentationOptions:
    """
    Return the settings of the tracks that are kept, from which `threshold` and `classes` only choose.

    Where `top_k` limits their number, only those of the given classes count.
    """
    classes = None if options.top_k is None and options.one_label_per_query else options.classes
    return replace(options, threshold=min(options.threshold, LOWEST_SCORE), classes=classes)


def segment(
    segmenter: VideoInstanceSegmentationPipeline | None,
    video: str,
    options: SegmentationOptions,
    output: Path,
    inputs: Mapping[str, Any],
    max_bytes: int = MAX_BYTES,
) -> None:
    """
    Segment one video, write its folder, which appears when it is complete, and print the tracks.

    Without a segmenter, the tracks are chosen from all those that an earlier run kept in the folder.
    """
    # Opened once: an address is downloaded only once.
    decoder = options.decoder or ("pyav" if segmenter is None else segmenter.video_processor.decoder)
    source = open_video(
        video, decoder=decoder, frame_rate=options.frame_rate, strict=options.strict, max_bytes=max_bytes
    )
    inputs = {**inputs, **describe_video(video, max_bytes, getattr(source, "file", None))}
    if not inputs["json_only"]:
        # An overlay takes about as much space as its video; images take about ten times as much as a video of them.
        size = inputs["bytes"] // (10 if inputs["files"] > 1 else 1)
        check_space(output.parent, size, f"choose another --output, or pass --json-only ({shown(video)})")
    if segmenter is None:
        file, inputs["lowest_score"] = _find_all_tracks(output)
        all_tracks = VideoInstances.from_json(file)
    else:
        settings = _options_of_all_tracks(options)
        all_tracks = segment_video(segmenter.model, segmenter.video_processor, source, settings)
    result = all_tracks.filter(min_score=options.threshold, labels=options.classes)
    inputs["all_tracks"] = ALL_TRACKS if len(result) < len(all_tracks) else RESULTS
    failure = None
    try:
        with replace_files(output, last=RECORD, obsolete=(*PICTURES, ALL_TRACKS)) as folder:
            result.to_json(folder / RESULTS)
            if inputs["all_tracks"] != RESULTS:
                all_tracks.to_json(folder / ALL_TRACKS)
            try:
                if not inputs["json_only"]:
                    sheet = folder / PICTURES[1]
                    result.render(source, folder / PICTURES[0], contact_sheet=sheet, progress=options.progress)
                RunRecord(folder / RECORD, inputs).write()
            except (Exception, KeyboardInterrupt) as error:
                failure = error  # the tracks are kept
    except FileExistsError:
        if find_state(output, video, inputs, overwrite=False, max_bytes=max_bytes) != "finished":
            raise
    if isinstance(failure, EXPECTED_ERRORS):
        tracks = f"the tracks are in {output / RESULTS}, but drawing them failed"
        raise ValueError(f"{shown(video)}: {tracks}: {describe_error(failure)}") from failure
    if failure is not None:
        raise failure
    tracks, frames = counted(len(result), "track"), counted(result.num_frames, "frame")
    print(f"{output.name}: {tracks} in {frames}, written to {output}")
    for track, label, score in zip(result.track_ids.tolist(), result.label_names, result.scores.tolist()):
        print(f"  #{track} {label} {score:.2f}")


def _check_drawing() -> None:
    try:
        import_av()
    except ImportError as error:
        raise ImportError(f"{error} Overlays need it, too: --json-only leaves them out.") from error


def find_videos(arguments: list[str]) -> dict[str, str]:
    """
    Find the videos that the arguments stand for.

    Returns:
        The paths or addresses, by the name of the folder of results; see [`name_results`].

    Raises:
        FileNotFoundError: if an argument does not exist.
        ValueError: if an argument is empty, a folder holds no videos, or two videos have the same name.
    """
    paths: list[str] = []
    for argument in arguments:
        if not argument:
            raise ValueError("expected a video, got an empty name")
        refuse_live_sources(argument)
        if is_url(argument) or Path(argument).is_file():
            paths.append(argument)
        elif not Path(argument).is_dir():
            raise FileNotFoundError(f"no such video: {argument}")
        elif videos := list_videos(Path(argument)):
            paths += [argument] if videos == [Path(argument)] else map(str, videos)
        else:
            raise ValueError(f"the folder {argument} holds no images, no videos and no folders of images")
    named: dict[str, str] = {}
    for path in paths:
        name = name_results(path)
        same = next((other for other in named if _folded(other) == _folded(name)), None)
        if same is not None and not _is_same(path, named[same]):
            message = f"{shown(named[same])} and {shown(path)} would both be written to {name}"
            raise ValueError(f"{message}: pass them in separate calls, each with its own --output")
        named.setdefault(same or name, path)
    return named


def _folded(name: str) -> str:
    """Return the same text for names that are one file on Windows or macOS."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_same(path: str, other: str) -> bool:
    return path == other or (not (is_url(path) or is_url(other)) and os.path.samefile(path, other))


def name_results(video: str) -> str:
    """
    Name a video's folder of results: like the file or folder, without `.mp4`.

    The name depends on nothing else, and of a symbolic link it is the link's, so that a later call finds the folder.
    """
    if is_url(video):
        address = urlparse(video)
        name, is_folder = Path(unquote(address.path)).name or address.hostname or "", False
    else:
        name, is_folder = os.path.basename(os.path.abspath(video)), Path(video).is_dir()
    return output_name(name[:-4] if name.lower().endswith(".mp4") and not is_folder else name)


def describe_video(video: str, max_bytes: int, downloaded: IO[bytes] | None = None) -> dict[str, Any]:
    """
    Describe a video by size and hash of its content, to notice later that it has changed, wherever it lies.

    All bytes are hashed: that takes far less time than decoding them, and misses no change.
    """
    if is_url(video):
        with nullcontext(downloaded) if downloaded else download(video, max_bytes) as file:
            size = file.seek(0, os.SEEK_END)
            return {"video": shown(video), "files": 1, "bytes": size, "sha256": hash_content(file)}
    path = Path(video)
    files = list_frames(path) if path.is_dir() else [path]
    hashes = [hash_content(file) for file in files]
    digest = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    size = sum(file.stat().st_size for file in files)
    return {"video": os.path.abspath(path), "files": len(files), "bytes": size, "sha256": digest}


def find_state(
    folder: Path, video: str, inputs: Mapping[str, Any], overwrite: bool, max_bytes: int = MAX_BYTES
) -> Literal["finished", "kept", "missing"]:
    """
    Tell whether a video's folder has these results, or at least all tracks that they are chosen from ("kept").

    An address is downloaded to find out.

    Raises:
        FileExistsError: if the folder was written by something else, or from other inputs and not to be overwritten.
    """
    if not (folder / RECORD).is_file():
        if os.path.lexists(folder) and not (folder / UNFINISHED).exists():
            raise FileExistsError(f"{folder} exists and was not written by vita-hf predict: choose another --output")
        return "missing"
    description = describe_video(video, max_bytes)
    record = RunRecord(folder / RECORD, {**inputs, **description}, free=("video", "lowest_score", "all_tracks"))
    changes = record.changes() or []
    expected = [RESULTS, *([] if inputs["json_only"] else PICTURES)]
    if not changes and all((folder / name).is_file() for name in expected):
        return "finished"
    keeps_pictures = inputs["json_only"] and not overwrite  # they are never removed unasked
    choices = {"threshold"} if keeps_pictures else {"threshold", "json_only"}
    if inputs["top_k"] is None and inputs["one_label_per_query"]:
        choices.add("classes")
    if choices.issuperset(changes) and _find_all_tracks(folder)[1] <= inputs["threshold"]:
        return "kept"
    if not overwrite:
        record.matches()  # says what differs
    return "missing"


def _find_all_tracks(folder: Path) -> tuple[Path, float]:
    """
    Return the file with all tracks that were kept, and the score from which they were.

    The score is infinite if the file is gone, or if an earlier version wrote the folder, which kept only the result.
    """
    record = json.loads((folder / RECORD).read_bytes())
    file = folder / record.get("all_tracks", RESULTS)
    is_there = "all_tracks" in record and file.is_file()
    return file, record.get("lowest_score", math.inf) if is_there else math.inf

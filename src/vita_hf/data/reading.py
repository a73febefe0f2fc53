"""From an annotation file to a memory-mapped `datasets.Dataset`: slowly once, at once ever after."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from ..files import write_atomically
from .annotations.problems import AnnotationError, Problem
from .annotations.reader import RowMaker, read_annotation_file
from .classes import ClassChoice
from .schema import SCHEMA_VERSION, VIDEO_FEATURES, VideoDataset

logger = logging.getLogger(__name__)


def read_cached(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    form: str,
    classes: ClassChoice,
    skip_broken: bool,
    cache_dir: str | os.PathLike | None,
    name: str,
) -> VideoDataset:
    """
    Read an annotation file, or find what was made of it before.

    The cache's key has the file's path, size and time of change, all arguments, and [`SCHEMA_VERSION`]. Several
    processes may ask for the same file at once: one reads, the others wait.

    Raises:
        FileNotFoundError: the file, the folder, or the frames are missing (frames: only a few are looked for).
        AnnotationError: the file has faults; names file, video and annotation.
    """
    path, folder = os.path.abspath(annotations), os.path.abspath(images)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such annotation file: {annotations}")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no such folder of frames: {images}")
    state = os.stat(path)
    arguments = {
        "annotations": path,
        "images": folder,
        "form": form,
        "classes": astuple(classes),
        "skip_broken": skip_broken,
        "size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "schema_version": SCHEMA_VERSION,
    }
    key = hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:32]
    cache = os.fspath(cache_dir or datasets.config.HF_DATASETS_CACHE)
    arguments["summary"] = os.path.join(cache, "vita_hf", f"{key}.json")
    try:
        rows = datasets.Dataset.from_generator(
            generate_rows, features=VIDEO_FEATURES, cache_dir=cache, gen_kwargs=arguments, fingerprint=key
        )
    except DatasetGenerationError as error:
        raise (error.__cause__ or error) from None
    summary = Path(arguments["summary"])
    if not summary.is_file():  # somebody removed it and left the rows
        for _ in generate_rows(**arguments):
            pass
    about = json.loads(summary.read_text())
    for message in about["messages"]:
        logger.warning(message)
    _look_for_frames(rows, path, folder)
    return VideoDataset(rows, dict(enumerate(about["classes"])), name, about["skipped"])


def generate_rows(
    annotations: str, images: str, form: str, classes: tuple, skip_broken: bool, summary: str, **_: Any
) -> Iterator[dict[str, Any]]:
    """The rows of an annotation file. When all are out, writes class names and what there is to say to `summary`."""
    file = read_annotation_file(annotations, form)
    labels, names = ClassChoice(*classes).resolve(file)
    maker = RowMaker(file, labels, images)
    broken: list[Problem] = [problem for problem in file.problems if problem.severity == "error"]
    _stop_at(broken, skip_broken)
    dropped: list[Problem] = []
    # an annotation that names no video of the file costs no video
    skipped = {problem.video_id for problem in broken if problem.kind == "duplicate-id"}
    count = 0
    for video in file.videos:
        row, problems = maker.row(video)
        errors = [problem for problem in problems if problem.severity == "error"]
        _stop_at(errors, skip_broken)
        broken += errors
        dropped += [problem for problem in problems if problem.severity != "error"]
        if errors or video["id"] in skipped:
            skipped.add(video["id"])
        else:
            count += 1
            yield row
    if not count:
        raise AnnotationError(broken or [Problem("malformed", "it lists nothing to read", annotations)])
    messages = []
    if broken:
        lost = len(skipped - {None})
        messages.append(f"skipped {lost} videos for {len(broken)} faults, the first: {broken[0]}")
    if dropped:
        messages.append(f"dropped {len(dropped)} polygons, the first: {dropped[0]}")
    about = {"classes": names, "messages": messages, "skipped": len(skipped - {None})}
    write_atomically(Path(summary), json.dumps(about).encode())


def _stop_at(errors: list[Problem], skip_broken: bool) -> None:
    if errors and not skip_broken:
        raise AnnotationError(errors)


def _look_for_frames(rows: datasets.Dataset, path: str, folder: str) -> None:
    """Notices the wrong folder at once instead of at the first drawn clip. One missing frame is no proof."""
    some = rows.select(range(0, len(rows), max(1, len(rows) // 8))).select_columns("frames")
    frames = [frames[0]["path"] for frames in some["frames"]]
    if not any(map(os.path.isfile, frames)):
        raise FileNotFoundError(
            f"the frames that {path} names are not below {folder}, for example {frames[0]}: "
            "expected the folder that its file names are relative to"
        )


__all__ = ["generate_rows", "read_cached"]

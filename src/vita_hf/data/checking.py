"""Read a whole data set, frames and all, and list what is wrong with it."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from tqdm.auto import tqdm

from ..ops.rle import RleError, decode
from .annotations.problems import AnnotationError, Problem
from .annotations.reader import AnnotationFile, RowMaker, read_annotation_file
from .classes import ClassChoice
from .rows import BrokenSampleError, decode_frame, has_objects

_AT_ONCE = 1024  # frames handed to the threads before the first of them is waited for


def check_annotations(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    *,
    form: str = "ytvis",
    dataset: str | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> list[Problem]:
    """
    Check a data set: the annotation file, every mask, every frame.

    What is an error here stops the readers or training; what is a warning does not. See [`problems.KINDS`].

    Args:
        annotations: the json file.
        images: the folder that its file names are relative to.
        form: "ytvis" or "coco".
        dataset: "ytvis2019", "ytvis2021", "ovis" or "coco": the data set whose categories the file should have. `None`:
            whatever it lists.
        threads: that decode frames; by default a few more than there are cores.
        progress: whether to show tqdm's bar.

    Returns:
        All problems: those of the file as a whole, then video by video, then frame by frame.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    if not os.path.isdir(images):
        raise FileNotFoundError(f"no such folder of frames: {images}")
    problems: list[Problem] = []
    try:
        file = read_annotation_file(annotations, form)
        problems += file.problems
        labels, _ = ClassChoice(dataset=dataset).resolve(file)
    except AnnotationError as error:
        return problems + error.problems
    rows = []
    maker = RowMaker(file, labels, os.fspath(images))
    for video in file.videos:
        row, found = maker.row(video)
        problems += found
        if row:
            problems += _check_masks(row, video, file)
            if not has_objects(row) and all(problem.severity != "error" for problem in found):
                message = "no annotated object that is no crowd: training leaves it out"
                problems.append(Problem("no-annotations", message, file.path, row["video_id"]))
            rows.append((row, video))
    if not file.videos:
        problems.append(Problem("malformed", "it lists nothing to read", file.path))
    with tqdm(total=sum(len(row["frames"]) for row, _ in rows), unit="frame", disable=not progress) as bar:
        problems += _check_frames(rows, file, threads, bar)
    return problems


def _check_masks(row: dict[str, Any], video: dict[str, Any], file: AnnotationFile) -> Iterator[Problem]:
    """Whether its masks can be decoded."""
    for instance in row["instances"]:
        masks = {t: mask["rle"] for t, mask in enumerate(instance["segmentations"]) if mask and mask["rle"] is not None}
        try:
            decode(list(masks.values()), row["height"] * row["width"]) if masks else None
        except RleError as error:
            frames = list(masks)
            for index, message in error.problems.items():
                t = frames[index]
                yield Problem(
                    "rle-corrupt", message, file.path, row["video_id"], instance["id"], t, video["file_names"][t]
                )


def _check_frames(
    rows: list[tuple[dict, dict]], file: AnnotationFile, threads: int | None, bar: tqdm
) -> Iterator[Problem]:
    def check(place: tuple[dict, dict, int]) -> Problem | None:
        row, video, t = place
        try:
            decode_frame({"path": row["frames"][t], "bytes": None}, row)
        except BrokenSampleError as error:
            message = f"{error.file}: {error.reason}"
            return Problem(error.kind, message, file.path, row["video_id"], None, t, video["file_names"][t])
        return None

    places = ((row, video, t) for row, video in rows for t in range(len(row["frames"])))
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(places, _AT_ONCE):
            for problem in pool.map(check, batch):
                bar.update()
                if problem is not None:
                    yield problem


def _batches(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


__all__ = ["check_annotations"]

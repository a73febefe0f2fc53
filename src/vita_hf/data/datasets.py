"""Load annotation files as memory-mapped datasets, parsed once and cached for later runs."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from datasets import Dataset, config
from datasets.exceptions import DatasetGenerationError

from ..files import hash_content, write_atomically
from ..text import counted
from .annotations import AnnotationError, Problem, read_annotations
from .categories import COCO_TO_DATASET
from .classes import ClassChoice
from .rows import make_row
from .schema import SCHEMA_VERSION, VIDEO_FEATURES, VideoDataset

logger = logging.getLogger(__name__)

YTVIS_DATASETS = ("ytvis2019", "ytvis2021", "ovis")


def read_ytvis(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    *,
    categories: str | None = None,
    skip_broken: bool = False,
    follow_links: bool = False,
    cache_dir: str | os.PathLike | None = None,
    name: str | None = None,
) -> VideoDataset:
    """
    Read YouTube-VIS, OVIS, or your own data in the same format: one row per video.

    An object counts as present in a frame if the file has both a box and a segmentation for it. For annotations without
    `bboxes`, the segmentation alone decides.

    Args:
        annotations: The json file with `videos`, `annotations` and `categories`.
        images: The folder that the file's `file_names` are relative to.
        categories: "ytvis2019", "ytvis2021" or "ovis": use this dataset's classes, and refuse a file with other
            categories. None: the classes are the file's categories, by ascending id.
        skip_broken: Leave out videos with problems and log their number, instead of raising an error.
        follow_links: Accept frames that symbolic links in `images` lead out of that folder. It may always be a link
            itself.
        cache_dir: The folder for the Arrow files; by default the cache of `datasets`.
        name: The dataset's name; by default `categories`, or the name of the file.

    Raises:
        FileNotFoundError: if the file or the frames are missing.
        AnnotationError: if the annotations have errors; a `ValueError` that names the place of each.

    Example:
    ```python
    >>> import tempfile
    >>> from vita_hf.data.datasets import read_ytvis
    >>> from vita_hf.data.synthetic import write_synthetic_dataset

    >>> folder = write_synthetic_dataset(tempfile.mkdtemp() + "/data", seed=0, videos=1, length=2).parent
    >>> dataset = read_ytvis(folder / "annotations.json", folder / "JPEGImages", cache_dir=folder)
    >>> row = dataset.rows[0]
    >>> len(row["frames"]), dataset.id2label[row["instances"][0]["label"]]
    (2, 'flower')

    ```
    """
    if categories is not None and categories not in YTVIS_DATASETS:
        raise ValueError(f"categories: expected one of {', '.join(YTVIS_DATASETS)} or None, got {categories!r}")
    name = name or categories or Path(annotations).stem
    return _read_cached(
        annotations, images, "ytvis", ClassChoice(categories), skip_broken, follow_links, cache_dir, name
    )


def read_coco(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    *,
    target: str | None = "coco",
    skip_broken: bool = False,
    follow_links: bool = False,
    cache_dir: str | os.PathLike | None = None,
    name: str | None = None,
) -> VideoDataset:
    """
    Read COCO's instances, or your own data in the same format: one row per image, a video of one frame.

    Args:
        annotations, images, skip_broken, follow_links, cache_dir, name: As in [`read_ytvis`].
        target: The classes of the labels. "coco": COCO's 80. "ytvis2019", "ytvis2021" or "ovis": the video dataset's,
            by [`categories.COCO_TO_DATASET`]; annotations of other categories are dropped. None: the file's own
            categories, by ascending id.

    Raises:
        FileNotFoundError, AnnotationError: as in [`read_ytvis`].
    """
    if target not in (None, "coco", *COCO_TO_DATASET):
        raise ValueError(f"target: expected None, 'coco' or one of {', '.join(COCO_TO_DATASET)}, got {target!r}")
    choice = ClassChoice("coco" if target else None, target if target in COCO_TO_DATASET else None)
    name = name or ("coco" if target else Path(annotations).stem)
    return _read_cached(annotations, images, "coco", choice, skip_broken, follow_links, cache_dir, name)


def _read_cached(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    form: str,
    classes: ClassChoice,
    skip_broken: bool,
    follow_links: bool,
    cache_dir: str | os.PathLike | None,
    name: str,
) -> VideoDataset:
    """
    Read an annotation file from the cache, which is filled first if necessary.

    The cache's key holds the path and content of the file, all arguments, and [`SCHEMA_VERSION`]. If
    several processes ask for the same file at once, one reads it and the others wait.
    """
    path, folder = os.path.abspath(annotations), os.path.abspath(images)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such annotation file: {annotations}")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no such folder of frames: {images}")
    arguments = {
        "annotations": path,
        "images": folder,
        "form": form,
        "classes": astuple(classes),
        "skip_broken": skip_broken,
        "follow_links": follow_links,
        "sha256": hash_content(path),
        "schema_version": SCHEMA_VERSION,
    }
    key = hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:32]
    cache = os.fspath(cache_dir or config.HF_DATASETS_CACHE)
    summary = Path(cache, "vita_hf", f"{key}.json")
    arguments["summary"] = str(summary)
    try:
        rows = Dataset.from_generator(
            generate_rows, features=VIDEO_FEATURES, cache_dir=cache, gen_kwargs=arguments, fingerprint=key
        )
    except DatasetGenerationError as error:
        raise (error.__cause__ or error) from None
    if not summary.is_file():  # it was removed, but the rows were not
        for _ in generate_rows(**arguments):
            pass
    about = json.loads(summary.read_bytes())
    for message in about["messages"]:
        logger.warning(message)
    _look_for_frames(rows, path, folder)
    return VideoDataset(rows, dict(enumerate(about["classes"])), name, about["skipped"])


def generate_rows(
    annotations: str,
    images: str,
    form: str,
    classes: tuple,
    skip_broken: bool,
    summary: str,
    follow_links: bool = False,
    **_: Any,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of an annotation file; then write the classes' names and the messages to log to `summary`."""
    file = read_annotations(annotations, form)
    labels, names = ClassChoice(*classes).resolve(file)
    problems = [*file.problems, *file.unknown_categories(labels)]
    errors = _find_errors(problems, skip_broken)
    # an annotation whose video is not in the file costs no video
    broken = {problem.video_id for problem in errors if problem.kind != "unknown-video"} - {None}
    warnings = file.problems.copy()
    count = 0
    for video in file.videos.values():
        if video.id in broken:
            continue
        row, problems = make_row(video, file, labels, images, follow_links)
        if found := _find_errors(problems, skip_broken):
            errors += found
            broken.add(video.id)
            continue
        warnings += problems
        count += 1
        yield row
    if not count:
        raise AnnotationError(errors)
    messages = []
    if errors:
        messages.append(
            f"skipped {counted(len(broken), 'video')} with {counted(len(errors), 'problem')}, the first: {errors[0]}"
        )
    if dropped := [problem for problem in warnings if problem.kind == "polygon"]:
        messages.append(f"dropped {counted(len(dropped), 'polygon')}, the first: {dropped[0]}")
    if unmasked := [problem for problem in warnings if problem.kind == "no-mask"]:
        messages.append(f"objects without a mask train as background, {len(unmasked)} times, the first: {unmasked[0]}")
    about = {"classes": names, "messages": messages, "skipped": len(broken)}
    write_atomically(summary, json.dumps(about).encode())


def _find_errors(problems: list[Problem], skip_broken: bool) -> list[Problem]:
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors and not skip_broken:
        raise AnnotationError(errors)
    return errors


def _look_for_frames(rows: Dataset, path: str, folder: str) -> None:
    """Fail now, not at the first clip, if the folder is wrong. A single missing frame does not count as a wrong one."""
    some = rows.select(range(0, len(rows), max(1, len(rows) // 8))).select_columns("frames")
    frames = [frames[0]["path"] for frames in some["frames"]]
    if not any(map(os.path.isfile, frames)):
        raise FileNotFoundError(
            f"the frames that {path} names are not below {folder}, for example {frames[0]}: "
            "expected the folder that its file names are relative to"
        )

"""Dataset splits to evaluate on: the videos or images of an annotation file and the folder with their frames."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.annotations import AnnotationError, read_annotations
from ..data.categories import plain_name
from ..data.frames import find_frames
from ..scoring import GroundTruth


@dataclass(frozen=True)
class Clip:
    """A video, or an image as a video of one frame: its id in the file, its frames' paths, and (height, width)."""

    id: Any
    frames: list[Path]
    size: tuple[int, int]


@dataclass(frozen=True)
class Split:
    """
    A dataset split.

    Attributes:
        path: The annotation file.
        clips: The videos or images, in the order of the file.
        categories: The names of the file's categories by id, in ascending order of ids.
        of_images: Whether the file is in COCO format (images) rather than in YouTube-VIS format (videos).
        annotated: Whether the file has annotations to score against.
    """

    path: Path
    clips: list[Clip]
    categories: Mapping[Any, str]
    of_images: bool
    annotated: bool


def read_split(annotations: str | os.PathLike, images: str | os.PathLike, follow_links: bool = False) -> Split:
    """
    Read a dataset split, and check that all of its frames exist.

    Args:
        annotations: Json in YouTube-VIS format (YouTube-VIS, OVIS) or COCO form, with or without annotations.
        images: The folder that the frames' file names are relative to.
        follow_links: Accept frames that symbolic links in `images` lead out of that folder. It may always be a link
            itself.

    Raises:
        FileNotFoundError: if the file, the folder or frames are missing.
        AnnotationError: if the json is malformed, two videos have one id, or the name of a frame leads out of the
            folder; the message names the place of each problem.
    """
    path, folder = Path(annotations), Path(images)
    if not path.is_file():
        raise FileNotFoundError(f"no such annotation file: {path}")
    file = read_annotations(path, ("ytvis", "coco"))
    # Results do not depend on the ids of annotations.
    if errors := [each for each in file.problems if each.severity == "error" and each.kind != "annotation-id"]:
        raise AnnotationError(errors)
    file.expect_categories()
    clips, problems = [], []
    for video in file.videos.values():
        frames, misplaced = find_frames(video, file, os.fspath(images), follow_links)
        clips.append(Clip(video.id, [Path(frame) for frame in frames], (video.height, video.width)))
        problems += misplaced
    if problems:
        raise AnnotationError(problems)
    if missing := [str(frame) for clip in clips for frame in clip.frames if not os.path.isfile(frame)]:
        raise FileNotFoundError(
            f"{len(missing)} frames that {path} names are not below {folder}, for example {', '.join(missing[:5])}"
        )
    annotated = any(video.annotations for video in file.videos.values())
    return Split(path, clips, file.categories, file.form == "coco", annotated)


def check_split(split: Split, id2label: Mapping[Any, str]) -> None:
    """
    Check the model's classes and the ground truth before a long run starts.

    Raises:
        ValueError: if the model's classes are not the split's categories, or the annotations are malformed.
    """
    try:
        match_categories(id2label, split.categories)
    except ValueError as error:
        raise ValueError(f"{split.path}: {error}") from None
    if split.annotated:
        GroundTruth(split.path, "coco" if split.of_images else "ytvis")


def match_categories(id2label: Mapping[Any, str], categories: Mapping[Any, str]) -> dict[int, Any]:
    """
    Map the model's labels to the ids of the annotation file's categories (name by id, in ascending order of ids).

    Classes and categories are matched by name: by exact names first, then ignoring case, underscores and hyphens. A
    model without class names (`LABEL_0`, `LABEL_1`, …) has its classes matched in order.

    Raises:
        ValueError: if the names differ or are ambiguous or, for a model without class names, the numbers of classes
            differ.
    """
    if all(name == f"LABEL_{label}" for label, name in id2label.items()):
        if len(id2label) != len(categories):
            raise ValueError(f"the model has {len(id2label)} classes, the annotation file {len(categories)} categories")
        return dict(zip(sorted(id2label), categories))
    shared = {*id2label.values()} & {*categories.values()}
    classes = _group_by_name(id2label, "the model's classes", shared)
    groups = _group_by_name(categories, "the annotation file's categories", shared)
    if classes.keys() != groups.keys():
        only_model, only_file = (sorted(names)[:5] for names in (classes.keys() - groups, groups.keys() - classes))
        raise ValueError(
            "the model's classes are not the annotation file's categories: only the model has "
            f"{only_model}, only the file {only_file}"
        )
    return {label: groups[name] for name, label in classes.items()}


def _group_by_name(names: Mapping[Any, str], what: str, exact: Collection[str]) -> dict[str, Any]:
    """Return labels or ids by name, plain unless it is one of the exact ones; two of one name are ambiguous."""
    keys: dict[str, Any] = {}
    for key, name in names.items():
        matched = name if name in exact else plain_name(name)
        if matched in keys:
            raise ValueError(f"{what} {names[keys[matched]]!r} and {name!r} cannot be told apart: rename one of them")
        keys[matched] = key
    return keys

"""Annotation files in YouTube-VIS's or COCO's form, turned video by video into rows, with every fault noted on the way.

COCO is read as YouTube-VIS with videos of one frame. Both the readers and the checker go through here: what the checker
calls an error is what a reader stops at.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_api

from ...ops.rle import MAX_PIXELS, explain_corruption
from ...scoring.validation import is_integer, shorten
from .problems import AnnotationError, Problem


@dataclass(frozen=True)
class AnnotationFile:
    """
    The tables of an annotation file, COCO's in YouTube-VIS's form.

    Attributes:
        path: as given.
        videos: `{"id", "height", "width", "file_names", "length"?}`, those with an id of their own.
        annotations: by video id, in the file's order.
        categories: names by id, by ascending id; empty where the file has none.
        problems: of the file as a whole.
    """

    path: str
    videos: list[dict[str, Any]]
    annotations: dict[int, list[dict[str, Any]]]
    categories: dict[int, str]
    problems: list[Problem]


def read_annotation_file(path: str | os.PathLike, form: str) -> AnnotationFile:
    """
    Read the tables of an annotation file and join annotations with their videos.

    Args:
        path: the json file.
        form: "ytvis" or "coco".

    Raises:
        FileNotFoundError: there is no such file.
        AnnotationError: it is not json, or lacks a table.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such annotation file: {path}")

    def fail(message: str):
        raise AnnotationError([Problem("malformed", message, path)]) from None

    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        fail(f"not json: {error}")
    table, other = ("videos", "images") if form == "ytvis" else ("images", "videos")
    if not isinstance(content, dict) or not isinstance(content.get(table), list):
        hint = f"; it has {other!r}, is it of the other form?" if isinstance(content, dict) and other in content else ""
        fail(f"expected an object with the list {table!r}, as in {'YouTube-VIS' if form == 'ytvis' else 'COCO'}{hint}")
    # the official validation and test files have no annotations, or null
    entries = content.get("annotations") or []
    if not isinstance(entries, list) or not isinstance(content.get("categories", []), list):
        fail("expected lists under 'annotations' and 'categories'")
    if form == "coco":
        videos = map(_image_as_video, content[table])
        entries = map(_annotation_of_one_frame, entries)
    else:
        videos = content[table]

    problems: list[Problem] = []
    categories = _read_categories(content.get("categories", []), path, problems)
    kept: dict[int, dict] = {}
    for index, video in enumerate(videos):
        key = video.get("id") if isinstance(video, dict) else None
        if not is_integer(key):
            problems.append(Problem("malformed", f"{table}[{index}]: expected an integer id, got {shorten(key)}", path))
        elif key in kept:
            problems.append(Problem("duplicate-id", f"{table}[{index}]: an earlier entry has the same id", path, key))
        else:
            kept[key] = video
    annotations: dict[int, list] = {key: [] for key in kept}
    for index, entry in enumerate(entries):
        owner = entry.get("video_id") if isinstance(entry, dict) else None
        if is_integer(owner) and owner in annotations:
            annotations[owner].append(entry)
        else:
            message = f"annotations[{index}]: the file has no {table[:-1]} with this id"
            key = entry.get("id") if isinstance(entry, dict) else None
            problems.append(Problem("unknown-video", message, path, shorten(owner), key))
    return AnnotationFile(path, list(kept.values()), annotations, categories, problems)


def _image_as_video(image: Any) -> Any:
    if not isinstance(image, dict):
        return image
    return {**image, "file_names": [image.get("file_name")]}


def _annotation_of_one_frame(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    track = {"id": entry.get("id"), "video_id": entry.get("image_id"), "category_id": entry.get("category_id")}
    track |= {"iscrowd": entry.get("iscrowd", 0), "segmentations": [entry.get("segmentation")]}
    if "bbox" in entry:
        track["bboxes"] = [entry["bbox"]]
    return track


def _read_categories(entries: list, path: str, problems: list[Problem]) -> dict[int, str]:
    names: dict[int, str] = {}
    for index, entry in enumerate(entries):
        key, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        where = f"categories[{index}]"
        if not is_integer(key) or not isinstance(name, str):
            message = f"{where}: expected an integer id and a name, got {shorten(entry)}"
            problems.append(Problem("malformed", message, path))
        elif key in names or name in names.values():
            message = f"{where}: an earlier category has the id {key} or the name {name!r} too"
            problems.append(Problem("duplicate-id", message, path))
        else:
            names[key] = name
    return dict(sorted(names.items()))


class RowMaker:
    """
    Turns videos of an annotation file into rows of [`schema.VIDEO_FEATURES`].

    Args:
        file: the tables.
        labels: the class index of each known category id; `None` for categories that are to be dropped.
        images: the folder that frame names are relative to.
    """

    def __init__(self, file: AnnotationFile, labels: Mapping[int, int | None], images: str):
        self.file = file
        self.labels = labels
        self.images = images
        self.annotation_ids: set[int] = set()

    def row(self, video: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        """
        One video's row, and what is wrong with it. The row is of use for training only if none of the problems is an
        error; it is empty where its frames or their size are not known, and then its annotations are not looked at. Nor
        are the masks of annotations without one for every frame.

        Where `bboxes` is there, an object is in a frame only if both its box and its segmentation are, as in the
        reference; files without any `bboxes` (own data) are read by their segmentations alone.
        """
        problems = self._check_video(video)
        if any(problem.kind == "malformed" for problem in problems):
            return {}, problems
        names, size = video["file_names"], (video["height"], video["width"])
        instances = []
        for entry in self.file.annotations[video["id"]]:

            def note(kind: str, message: str, frame: int | None = None, entry=entry):
                name = None if frame is None else names[frame]
                problems.append(Problem(kind, message, self.file.path, video["id"], entry.get("id"), frame, name))

            label = self._check_annotation(entry, note)
            if self._check_lengths(entry, len(names), note):
                segmentations = self._segmentations(entry, size, note)
                if label is not None:
                    instance = {"id": entry.get("id"), "label": label, "iscrowd": bool(entry.get("iscrowd", 0))}
                    instances.append({**instance, "segmentations": segmentations})
        row = {"video_id": video["id"], "height": size[0], "width": size[1], "instances": instances}
        return {**row, "frames": [os.path.join(self.images, name) for name in names]}, problems

    def _check_video(self, video: dict[str, Any]) -> list[Problem]:
        def fault(kind: str, message: str) -> list[Problem]:
            return [Problem(kind, message, self.file.path, video["id"])]

        names, size = video.get("file_names"), [video.get("height"), video.get("width")]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            return fault("malformed", f"expected the names of its frames, got {shorten(names)}")
        if not all(is_integer(side) and side > 0 for side in size) or math.prod(size) > MAX_PIXELS:
            return fault("malformed", f"expected positive integers [height, width], got {shorten(size)}")
        if video.get("length", len(names)) != len(names):
            return fault("length", f"length is {shorten(video['length'])}, but it names {len(names)} frames")
        return []

    def _check_annotation(self, entry: dict[str, Any], note) -> int | None:
        """Note what is wrong with it as a whole; returns its class, -1 for none, `None` if it is to be dropped."""
        key, category = entry.get("id"), entry.get("category_id")
        if not is_integer(key):
            note("malformed", f"expected an integer id, got {shorten(key)}")
        elif key in self.annotation_ids:
            note("duplicate-id", "an earlier annotation has the same id")
        else:
            self.annotation_ids.add(key)
        if entry.get("iscrowd", 0) not in (0, 1):
            note("malformed", f"iscrowd: expected 0 or 1, got {shorten(entry['iscrowd'])}")
        if not is_integer(category) or category not in self.labels:
            note("unknown-category", f"category {shorten(category)}, expected one of {_some(self.labels)}")
            return -1
        return self.labels[category]

    def _check_lengths(self, entry: dict[str, Any], length: int, note) -> bool:
        """Note where it has not one entry a frame; returns whether it has."""
        fine = True
        for field in ("segmentations", "bboxes"):
            values = entry.get(field)
            if values is None and field == "bboxes":
                continue
            if not isinstance(values, list):
                note("malformed", f"{field}: expected a list with an entry a frame, got {shorten(values)}")
                fine = False
            elif len(values) != length:
                note("length", f"{field} has {len(values)} entries, expected one for each of the {length} frames")
                fine = False
        return fine

    def _segmentations(self, entry: dict[str, Any], size: tuple[int, int], note) -> list[dict[str, Any] | None]:
        segmentations = entry["segmentations"]
        boxes = entry.get("bboxes") or [True] * len(segmentations)
        found = []
        for frame, (segmentation, box) in enumerate(zip(segmentations, boxes)):
            if not segmentation or not box:
                found.append(None)
            elif isinstance(segmentation, dict):
                counts = _read_rle(segmentation, size, lambda kind, message, frame=frame: note(kind, message, frame))
                found.append(None if counts is None else {"rle": counts, "polygons": None})
            elif isinstance(segmentation, list):
                polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
                for index, polygon in enumerate(segmentation) if len(polygons) < len(segmentation) else ():
                    if not _is_polygon(polygon):
                        expected = "expected [x0, y0, …] of at least three points"
                        note("polygon", f"polygon {index}: {expected}, got {shorten(polygon)}", frame)
                found.append({"rle": None, "polygons": polygons} if polygons else None)
            else:
                note("malformed", f"expected null, an RLE or polygons, got {shorten(segmentation)}", frame)
                found.append(None)
        return found


def _read_rle(segmentation: dict[str, Any], size: tuple[int, int], note) -> str | None:
    counts = segmentation.get("counts")
    if segmentation.get("size") != [*size]:
        got = shorten(segmentation.get("size"))
        note("rle-size", f"the RLE is of size {got}, its video [height, width] = {[*size]}")
        return None
    if isinstance(counts, str):
        return counts
    if not isinstance(counts, list):
        note("malformed", f"RLE counts: expected a string or a list of run lengths, got {shorten(counts)}")
        return None
    # pycocotools checks nothing here. A glance first: there may be 100,000 of these.
    if {*map(type, counts)} != {int} or min(counts) < 0 or sum(counts) != math.prod(size):
        note("rle-corrupt", explain_corruption(counts, math.prod(size)) or "corrupt RLE: no run lengths")
        return None
    return mask_api.frPyObjects({"size": [*size], "counts": counts}, *size)["counts"].decode("ascii")


def _is_polygon(polygon: Any) -> bool:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    try:
        return math.isfinite(sum(polygon))  # also says no to what is no number
    except TypeError:
        return False


def _some(values) -> str:
    values = [str(value) for value in values]
    return ", ".join(values[:10]) + (f", … ({len(values)})" if len(values) > 10 else "")


__all__ = ["AnnotationFile", "RowMaker", "read_annotation_file"]

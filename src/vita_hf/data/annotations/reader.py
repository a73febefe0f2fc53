"""The reader of YouTube-VIS, OVIS and COCO annotation files, for training, evaluation, scoring and the checker alike.

COCO is read as YouTube-VIS with videos of one frame. The reader checks everything except the content of the masks,
which is read frame by frame where it is needed (see [`vita_hf.ops.rle.read_segmentation`]).
"""

import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...ops.rle import MAX_PIXELS, shorten
from ...text import counted
from .problems import AnnotationError, InvalidInputError, Problem
from .values import id_order, is_finite, is_id, is_integer, is_list, some

FORMS = {
    "ytvis": "an object with the list 'videos', as in YouTube-VIS and OVIS",
    "coco": "an object with the list 'images', as in COCO",
    "tracks": "a list of annotations",
}
OCCLUSION_LEVELS = ("no_occlusion", "slight_occlusion", "severe_occlusion")

Id = int | str


class Annotation(NamedTuple):
    """
    One annotated object of a video of T frames.

    Attributes:
        entry: The place in the file, like "annotations[3]".
        id, category_id: The file's ids; `category_id` is checked by [`AnnotationFile.unknown_categories`].
        is_crowd: Whether it stands for a crowd of objects.
        segmentations: For each of the T frames, None, an RLE or polygons, as in the file.
        boxes, areas, occlusion: T entries each, as in the file; None if the file has no such field.
    """

    entry: str
    id: Id | None
    category_id: Id
    is_crowd: bool
    segmentations: list[Any]
    boxes: list[Any] | None
    areas: list[float | None] | None
    occlusion: list[str | None] | None


@dataclass
class Video:
    """One video, or an image as a video of one frame; `file_names` is empty if the file has none."""

    entry: str
    id: Id
    height: int
    width: int
    length: int
    file_names: list[str]
    annotations: list[Annotation] = field(default_factory=list)


@dataclass
class AnnotationFile:
    """
    The content of an annotation file.

    Attributes:
        path: The path of the file; None if the content was given.
        form: "ytvis", "coco" or "tracks".
        videos: Videos by id, in the file's order.
        categories: Names by id, in ascending order of the ids; a category without a name is named by its id.
        has_annotations: Whether the file has a table of annotations. Official validation files have none.
        problems: All problems except those of masks and unknown categories.
    """

    path: str | None
    form: str
    videos: dict[Id, Video] = field(default_factory=dict)
    categories: dict[Id, str] = field(default_factory=dict)
    has_annotations: bool = False
    problems: list[Problem] = field(default_factory=list)

    def expect_categories(self) -> None:
        """Raise an [`AnnotationError`] if the file lists no categories."""
        if not self.categories:
            raise AnnotationError([Problem("malformed", "`categories`: expected a list of at least one", self.path)])

    def unknown_categories(self, known: Collection[Id]) -> Iterator[Problem]:
        """Yield a problem for every annotation whose category is not among the known ones."""
        for video in self.videos.values():
            for annotation in video.annotations:
                key = annotation.category_id
                if not is_id(key) or key not in known:
                    message = f"`category_id` {shorten(key)}: expected one of {some(known)}"
                    place = (self.path, annotation.entry, video.id, annotation.id)
                    yield Problem("unknown-category", message, *place)


def read_annotations(
    source: str | os.PathLike | dict | list, form: str | Collection[str] | None = None
) -> AnnotationFile:
    """
    Read and check the tables of an annotation file.

    Problems with single entries are collected in the result, so the caller can decide which matter.

    Args:
        source: The path of a json file, or its content.
        form: The expected format, or several: "ytvis" (YouTube-VIS, OVIS), "coco", or "tracks": only the list of
            YouTube-VIS's annotations, from which sizes, lengths and categories are inferred. None: any of them.

    Raises:
        FileNotFoundError: if there is no such file.
        AnnotationError: if the file is not json or not of an expected form.

    Example:
    ```python
    >>> from vita_hf.data.annotations import read_annotations

    >>> video = {"id": 1, "height": 4, "width": 4, "file_names": ["a.jpg", "b.jpg"]}
    >>> track = {"id": 7, "video_id": 1, "category_id": 2, "segmentations": [None]}
    >>> categories = [{"id": 2, "name": "cat"}]
    >>> file = read_annotations({"videos": [video], "annotations": [track], "categories": categories})
    >>> file.videos[1].length
    2
    >>> print(file.problems[0])
    annotations[0] (video 1, annotation 7): `segmentations` has 1 entries, expected one for each of the 2 frames

    ```
    """
    path, content = None, source
    if isinstance(source, (str, os.PathLike)):
        path, content = os.fspath(source), load_json(source)
    expected = FORMS if form is None else [form] if isinstance(form, str) else form
    for candidate in expected:
        table = {"ytvis": "videos", "coco": "images"}.get(candidate)
        if is_list(content) if table is None else isinstance(content, dict) and is_list(content.get(table)):
            return _TableReader(path, candidate).read(content)
    got = f"an object with {some(content) or 'no keys'}" if isinstance(content, dict) else type(content).__name__
    message = f"expected {', or '.join(FORMS[candidate] for candidate in expected)}; got {got}"
    raise AnnotationError([Problem("malformed", message, path)])


def load_json(path: str | os.PathLike, error: type[InvalidInputError] = AnnotationError) -> Any:
    """
    Load a json file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: if there is no such file.
        InvalidInputError: if the file is not json; an error of the given type.
    """
    content = Path(path).read_bytes()
    try:
        if content.startswith(b"\x1f\x8b"):
            raise ValueError("it is compressed with gzip, unpack it first")
        return json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as reason:
        message = f"the file is not json: {reason}" if content.strip() else "the file is empty, expected json"
        raise error([Problem("malformed", message, os.fspath(path))]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with two values of one key: json keeps the last one in silence."""
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"an object has the key {shorten(repeated)} twice")
    return content


class _TableReader:
    """Fills an [`AnnotationFile`] table by table."""

    def __init__(self, path: str | None, form: str):
        self.file = AnnotationFile(path, form)
        self.video_table = "images" if form == "coco" else "videos"
        self.video_ids: set[Id] = set()  # of broken videos, too
        self.annotation_ids: set[Id] = set()
        self.category_names: set[str] = set()

    def note(self, kind: str, message: str, *place: Any) -> None:
        self.file.problems.append(Problem(kind, message, self.file.path, *place))

    def read(self, content: Any) -> AnnotationFile:
        tables = {"categories": self.read_category, self.video_table: self.read_video}
        if self.file.form == "tracks":
            content = _infer_tables(content)
        elif not content[self.video_table]:
            self.note("malformed", f"`{self.video_table}`: expected a list of at least one, got []")
        if content[self.video_table] or self.file.form == "tracks":
            tables["annotations"] = self.read_annotation
        for table, read in tables.items():
            entries = content.get(table)
            if not is_list(entries) and entries is not None:
                self.note("malformed", f"`{table}`: expected a list, got {shorten(entries)}")
                entries = None
            for index, entry in enumerate(entries or ()):
                if isinstance(entry, dict):
                    read(f"{table}[{index}]", entry)
                else:
                    self.note("malformed", f"expected an object, got {shorten(entry)}", f"{table}[{index}]")
        self.file.categories = dict(sorted(self.file.categories.items(), key=lambda item: id_order(item[0])))
        self.file.has_annotations = content.get("annotations") is not None
        return self.file

    def is_valid_id(self, key: Any, taken: Collection[Id], *place: Any) -> bool:
        """Tell whether a category or video can be entered in its table under an id."""
        if not is_id(key):
            self.note("malformed", f"`id`: expected an integer, got {shorten(key)}", *place[:1])
        elif key in taken:
            self.note("duplicate-id", f"an earlier entry has the same id {shorten(key)}", *place)
        elif _is_loose(key):
            self.note("id", f"`id`: expected an integer of 64 bits, got {shorten(key)}", *place)
        return is_id(key) and key not in taken

    def read_category(self, place: str, entry: Any) -> None:
        key, name = entry.get("id"), entry.get("name")
        if not self.is_valid_id(key, self.file.categories, place):
            return
        if not isinstance(name, str):
            self.note("category-name", f"`name`: expected a string, got {shorten(name)}", place)
        elif not name.isascii() and not _is_unicode(name):
            self.note("malformed", f"`name`: expected Unicode text, got {shorten(name)}", place)
        elif name in self.category_names:
            self.note("category-name", f"an earlier category has the name {shorten(name)}", place)
        self.file.categories[key] = str(key if name is None else name)
        self.category_names.add(self.file.categories[key])

    def read_video(self, place: str, entry: Any) -> None:
        key = entry.get("id")
        if not self.is_valid_id(key, self.video_ids, place, key):
            return
        self.video_ids.add(key)
        names, length = entry.get("file_names"), entry.get("length")
        if self.file.form == "coco":
            names, length = [entry["file_name"]] if entry.get("file_name") else None, 1
        height, width = size = [entry.get("height"), entry.get("width")]
        problem = None
        if names and not (is_list(names) and all(isinstance(name, str) and name for name in names)):
            problem = f"`file_names`: expected the names of the frames, got {shorten(names)}"
        elif not all(is_integer(side) and side > 0 for side in size):
            problem = f"expected positive integers [height, width], got {shorten(size)}"
        elif math.prod(size) > MAX_PIXELS:
            problem = f"frames of more than {MAX_PIXELS} pixels cannot be read, got [height, width] = {shorten(size)}"
        elif not names and not (is_integer(length) and length > 0):
            problem = f"expected `file_names`, or `length` as a positive integer, got {shorten(length)}"
        if problem:
            self.note("malformed", problem, place, key)
            return
        if not names:
            self.note("frame-names", f"expected the names of the frames, got {shorten(names)}", place, key)
        elif length not in (None, len(names)):
            self.note(
                "length", f"`length` is {shorten(length)}, but it names {counted(len(names), 'frame')}", place, key
            )
        names = list(names or ())
        self.file.videos[key] = Video(place, key, int(height), int(width), len(names) or int(length), names)

    def read_annotation(self, place: str, entry: Any) -> None:
        key, is_coco = entry.get("id"), self.file.form == "coco"
        owner_field = "image_id" if is_coco else "video_id"
        owner = entry.get(owner_field)
        if owner is not None and not is_id(owner):
            self.note("malformed", f"`{owner_field}`: expected an integer, got {shorten(owner)}", place, None, key)
            return
        video = self.file.videos.get(owner)
        if video is None:
            if owner not in self.video_ids:  # a broken video itself is reported
                what = "video of known size" if self.file.form == "tracks" else self.video_table[:-1]
                self.note("unknown-video", f"the file has no {what} with this id", place, owner, key)
            return
        self.check_annotation_id(key, place, video.id)
        if entry.get("iscrowd") not in (None, 0, 1):
            message = f"`iscrowd`: expected 0 or 1, got {shorten(entry['iscrowd'])}"
            self.note("malformed", message, place, video.id, key)
        columns: dict[str, Any] = {name: entry.get(name) for name in ("segmentations", "bboxes", "areas", "occlusion")}
        if is_coco:
            columns = _columns_of_one_frame(entry)
            if not entry.get("segmentation"):
                self.note("no-mask", "`segmentation`: expected an RLE or polygons, got none", place, video.id, key)
        is_usable = True
        for name, values in columns.items():
            if problem := _check_column(name, values, video.length):
                self.note(*problem, place, video.id, key)
                columns[name] = None
                is_usable &= problem[0] == name
        if is_usable:
            is_crowd = entry.get("iscrowd") == 1
            video.annotations.append(Annotation(place, key, entry.get("category_id"), is_crowd, *columns.values()))

    def check_annotation_id(self, key: Any, place: str, video_id: Id) -> None:
        if key is None or (is_id(key) and _is_loose(key)):
            self.note("annotation-id", f"expected an integer `id` of 64 bits, got {shorten(key)}", place, video_id, key)
        elif not is_id(key):
            self.note("malformed", f"`id`: expected an integer, got {shorten(key)}", place, video_id)
        elif key == 0:
            message = "id 0 is read as 'unmatched' by the official scorers: number annotations from 1"
            self.note("annotation-id-zero", message, place, video_id, key)
        if is_id(key):
            if key in self.annotation_ids:
                self.note("duplicate-id", "an earlier annotation has the same id", place, video_id, key)
            self.annotation_ids.add(key)


def _is_unicode(text: str) -> bool:
    """Tell whether a text can be written to a file: json may hold halves of surrogate pairs."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _is_loose(key: Id) -> bool:
    """Tell whether an id cannot be stored as a 64-bit integer."""
    return isinstance(key, str) or not -(1 << 63) <= key < 1 << 63


def _columns_of_one_frame(entry: Any) -> dict[str, Any]:
    """Return the per-frame fields of a COCO annotation, as lists of one entry."""
    boxes = [entry["bbox"]] if "bbox" in entry else None
    areas = None if entry.get("area") is None else [entry["area"]]
    return {"segmentations": [entry.get("segmentation")], "bboxes": boxes, "areas": areas, "occlusion": None}


def _check_column(name: str, values: Any, length: int) -> tuple[str, str] | None:
    """Return the kind and the message of a problem in a field that has one entry for each frame."""
    if values is None and name != "segmentations":
        return None
    kind = name if name in ("areas", "occlusion") else None  # these matter to scoring only
    if not is_list(values):
        return kind or "malformed", f"`{name}`: expected a list with one entry for each frame, got {shorten(values)}"
    if len(values) != length:
        return kind or "length", f"`{name}` has {len(values)} entries, expected one for each of the {length} frames"
    if name == "areas":
        expected = "numbers >= 0"
        wrong = [area for area in values if area is not None and not (is_finite(area) and area >= 0)]
    elif name == "occlusion":
        expected = f"one of {some(OCCLUSION_LEVELS)}"
        wrong = [level for level in values if level is not None and level not in OCCLUSION_LEVELS]
    else:
        return None
    return (name, f"`{name}`: expected {expected} or null, got {shorten(wrong[0])}") if wrong else None


def _infer_tables(annotations: Iterable[Any]) -> dict[str, Any]:
    """Infer videos and categories from annotations; leave out the videos whose size is unknown."""
    videos: dict[Id, dict] = {}
    categories: dict[Id, dict] = {}
    for entry in annotations:
        if not isinstance(entry, dict):
            continue
        key, category, masks = (entry.get(name) for name in ("video_id", "category_id", "segmentations"))
        if is_id(category):
            categories[category] = {"id": category}
        if is_id(key) and key not in videos and is_list(masks) and masks:
            height, width = infer_size(masks) or (entry.get("height"), entry.get("width"))
            if height and width:
                videos[key] = {"id": key, "height": height, "width": width, "length": len(masks)}
    return {"videos": [*videos.values()], "categories": [*categories.values()], "annotations": annotations}


def infer_size(segmentations: Iterable[Any]) -> tuple[int, int] | None:
    """Return height and width of the first RLE of a track; None if there is none of a readable size."""
    for segmentation in segmentations:
        size = segmentation.get("size") if isinstance(segmentation, dict) else None
        if is_list(size) and len(size) == 2 and all(is_integer(side) and side > 0 for side in size):
            return (int(size[0]), int(size[1])) if math.prod(size) <= MAX_PIXELS else None
    return None

"""Reading annotations in YouTube-VIS or OVIS form into what scoring needs."""

import json
import math
import os
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..ops.rle import MAX_PIXELS, RleError, decode_tracks, empty_mask, read_segmentation
from .validation import InvalidInputError, is_id, is_integer, shorten, some

# OVIS: Qi et al., "Occluded Video Instance Segmentation: Dataset and ICCV 2021 Challenge", section 4, and their
# `oviseval.py`. The json stores one word a frame in an annotation's `occlusion`, null where the object is absent.
OCCLUSION_SCORES = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}


@dataclass(frozen=True)
class Instance:
    """One annotated object.

    Attributes:
        pairs: `(P, 2)` int32 run lengths of its masks over all frames, see `rle.decode`.
        area: pixels over all frames.
        mean_area: the area by which it is small, medium or large: mean of the non-zero `areas` of the file.
        is_crowd: matched to, but neither expected nor counted.
        occlusion: 0 to 0.75, or `None` when the file has no levels for it.
    """

    pairs: np.ndarray
    area: int
    mean_area: float
    is_crowd: bool
    occlusion: float | None


@dataclass
class Video:
    """One video and its annotated objects by category, in the file's order."""

    id: int | str
    height: int
    width: int
    length: int
    instances: dict[Any, list[Instance]] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        return self.height * self.width


class GroundTruth:
    """Videos, categories and annotated objects to score against.

    Args:
        references: path of an annotation file in YouTube-VIS or OVIS form, its content (`videos`, `categories`,
            `annotations`), or only the list of its annotations. With a list, the videos' sizes and lengths come from
            the annotations' own masks, categories are named by their ids, and predictions in other videos or
            categories are allowed.

    Attributes:
        videos: by id, in ascending order: the order that decides between equal scores in different videos.
        categories: names by id, in ascending order of the ids.
        is_complete: whether videos and categories outside of these are errors.

    Raises:
        InvalidInputError: with everything that is wrong with the annotations.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, references: str | os.PathLike | dict | list):
        subject, content = "annotations", references
        if isinstance(references, (str, os.PathLike)):
            subject = str(references)
            content = load_json(references, "annotations")
        problems: list[str] = []
        self.is_complete = not isinstance(content, (list, tuple))
        if self.is_complete:
            videos, categories, annotations = _read_tables(content, problems)
        else:
            videos, categories, annotations = _infer_tables(content)
        if not problems:
            _read_annotations(annotations, videos, categories, problems)
        if problems:
            raise InvalidInputError(subject, problems)
        self.videos = {key: videos[key] for key in sorted(videos, key=id_order)}
        self.categories = {key: categories[key] for key in sorted(categories, key=id_order)}

    def __iter__(self):
        """All annotated objects, as `(video, category id, instance)`."""
        for video in self.videos.values():
            for category, instances in video.instances.items():
                for instance in instances:
                    yield video, category, instance

    def fingerprint(self) -> str:
        """A short text that differs between annotations that score differently, up to the masks' shapes."""
        lines = [f"{v.id} {v.height} {v.width} {v.length}" for v in self.videos.values()]
        lines += [f"{v.id} {c} {i.area} {i.mean_area} {i.is_crowd} {i.occlusion}" for v, c, i in self]
        return f"{len(lines)}-{zlib.crc32(repr((lines, self.categories)).encode()):08x}"

    def category_names(self) -> dict[Any, str]:
        """Names by id; where several categories share one, the id is appended."""
        uses = Counter(self.categories.values())
        return {key: name if uses[name] == 1 else f"{name} ({key})" for key, name in self.categories.items()}


def load_json(path: str | os.PathLike, what: str) -> Any:
    """A json file's content.

    Raises:
        InvalidInputError: the file is empty or no json.
        FileNotFoundError: there is no such file.
    """
    text = Path(path).read_bytes()
    if not text.strip():
        raise InvalidInputError(str(path), [f"the file is empty, expected the json of {what}"])
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInputError(str(path), [f"the file is no valid json ({error})"]) from None


def id_order(key: Any) -> tuple:
    """Sorting key for ids: integers in ascending order, then strings."""
    return isinstance(key, str), key


def _read_tables(content: Any, problems: list[str]) -> tuple[dict, dict, list]:
    """`videos` and `categories` by id, and the list of annotations."""
    if not isinstance(content, dict):
        problems.append(f"expected an object with videos, categories and annotations, got {type(content).__name__}")
        return {}, {}, []
    for key in ("videos", "categories"):
        if not isinstance(content.get(key), list) or not content[key]:
            problems.append(f"`{key}`: expected a list of at least one, got {shorten(content.get(key))}")
    annotations = content.get("annotations")
    if annotations is None:
        problems.append(
            "it has no `annotations`. The official validation and test files carry none: their scores come from the "
            "evaluation servers; for a local score hold out videos of the training file"
        )
    elif not isinstance(annotations, list):
        problems.append(f"`annotations`: expected a list, got {shorten(annotations)}")
    if problems:
        return {}, {}, []

    videos: dict = {}
    for index, entry in enumerate(content["videos"]):
        name = f"video {index}"
        if not isinstance(entry, dict) or not is_id(entry.get("id")):
            problems.append(f"{name}: expected an object with an `id`, got {shorten(entry)}")
            continue
        name += f" (id {entry['id']})"
        length = entry.get("length", len(entry.get("file_names") or []))
        sizes = {"height": entry.get("height"), "width": entry.get("width"), "length": length}
        wrong = [f"`{key}` {shorten(value)}" for key, value in sizes.items() if not is_integer(value) or value < 1]
        if wrong:
            problems.append(f"{name}: expected a positive integer, got {', '.join(wrong)}")
        elif sizes["height"] * sizes["width"] > MAX_PIXELS:
            problems.append(f"{name}: frames of more than {MAX_PIXELS} pixels cannot be read")
        elif entry["id"] in videos:
            problems.append(f"{name}: the id is taken by an earlier video")
        else:
            videos[entry["id"]] = Video(entry["id"], int(entry["height"]), int(entry["width"]), int(length))
    categories: dict = {}
    for index, entry in enumerate(content["categories"]):
        if not isinstance(entry, dict) or not is_id(entry.get("id")):
            problems.append(f"category {index}: expected an object with an `id`, got {shorten(entry)}")
        elif entry["id"] in categories:
            problems.append(f"category {index} (id {entry['id']}): the id is taken by an earlier category")
        else:
            categories[entry["id"]] = str(entry.get("name", entry["id"]))
    return videos, categories, annotations


def _infer_tables(annotations: list) -> tuple[dict, dict, list]:
    """The same from annotations alone. Whatever cannot be inferred is left out and reported with the annotation."""
    videos: dict = {}
    categories: dict = {}
    for entry in annotations:
        if not isinstance(entry, dict) or not is_id(entry.get("video_id")) or not is_id(entry.get("category_id")):
            continue
        categories[entry["category_id"]] = str(entry["category_id"])
        masks = entry.get("segmentations")
        if entry["video_id"] in videos or not isinstance(masks, (list, tuple)) or not masks:
            continue
        size = infer_size(masks) or [entry.get("height"), entry.get("width")]
        if all(is_integer(value) and value > 0 for value in size) and math.prod(size) <= MAX_PIXELS:
            videos[entry["video_id"]] = Video(entry["video_id"], *map(int, size), len(masks))
    return videos, categories, list(annotations)


def infer_size(masks: list) -> list | None:
    """Height and width that the first RLE of a track states."""
    for mask in masks:
        size = mask.get("size") if isinstance(mask, dict) else None
        if isinstance(size, (list, tuple)) and len(size) == 2 and all(is_integer(v) and v > 0 for v in size):
            return list(size)
    return None


def _read_annotations(annotations: list, videos: dict, categories: dict, problems: list[str]) -> None:
    """Fills the videos' `instances`."""
    ids = set()
    by_video: dict = {}
    for index, entry in enumerate(annotations):
        if not isinstance(entry, dict):
            problems.append(f"annotation {index}: expected an object, got {shorten(entry)}")
            continue
        key, video, category = (entry.get(k) for k in ("id", "video_id", "category_id"))
        name = f"annotation {index} (id {key}, video {video}, category {category})"
        found = _check_annotation(entry, ids, videos, categories)
        problems += [f"{name}: {problem}" for problem in found]
        if not found:
            by_video.setdefault(entry["video_id"], []).append((name, entry))
    for key, entries in by_video.items():
        _read_video(videos[key], entries, problems)


def _check_annotation(entry: dict, ids: set, videos: dict, categories: dict) -> list[str]:
    problems = []
    # Annotations of one's own making may do without ids; 0 is a trap in other scorers, which take it for "unmatched".
    key = entry.get("id")
    if key is not None:
        if not is_id(key):
            problems.append(f"`id`: expected an integer, got {shorten(key)}")
        elif key == 0:
            problems.append("id 0 is read as 'unmatched' by the official scorers: number annotations from 1")
        elif key in ids:
            problems.append(f"id {key} is taken by an earlier annotation")
        else:
            ids.add(key)
    if not is_id(entry.get("category_id")) or entry["category_id"] not in categories:
        problems.append(f"category {shorten(entry.get('category_id'))} is not among the file's categories")
    if not is_id(entry.get("video_id")) or entry["video_id"] not in videos:
        problems.append(
            f"video {shorten(entry.get('video_id'))} is not among the file's videos, or its size is unknown"
        )
        return problems
    video = videos[entry["video_id"]]
    for name in ("segmentations", "areas", "occlusion"):
        values = entry.get(name)
        if values is None and name != "segmentations":
            continue
        if not isinstance(values, (list, tuple)):
            problems.append(f"`{name}`: expected a list with one entry a frame, got {shorten(values)}")
        elif len(values) != video.length:
            problems.append(f"`{name}` has {len(values)} entries, the video {video.length} frames")
        elif name == "areas":
            wrong = [a for a in values if a is not None and not (isinstance(a, (int, float)) and 0 <= a < math.inf)]
            if wrong:
                problems.append(f"`areas`: expected numbers >= 0 or null, got {shorten(wrong[0])}")
        elif name == "occlusion":
            wrong = [word for word in values if word is not None and word not in (*OCCLUSION_SCORES,)]
            if wrong:
                problems.append(
                    f"`occlusion`: expected one of {some(OCCLUSION_SCORES)} or null, got {shorten(wrong[0])}"
                )
    if entry.get("iscrowd", 0) not in (0, 1):
        problems.append(f"`iscrowd`: expected 0 or 1, got {shorten(entry['iscrowd'])}")
    return problems


def _read_video(video: Video, entries: list[tuple[str, dict]], problems: list[str]) -> None:
    tracks, readable = [], []
    for name, entry in entries:
        masks, wrong = read_masks(entry["segmentations"], video)
        problems += [f"{name}, frame {frame}: {problem}" for frame, problem in wrong.items()]
        if not wrong:
            tracks.append(masks)
            readable.append((name, entry))
    remaining = iter(readable)
    for decoded in decode_tracks(tracks, video.pixels):
        if isinstance(decoded, RleError):
            name, _ = next(remaining)
            problems += [f"{name}, frame {frame}: {problem}" for frame, problem in decoded.problems.items()]
            continue
        for index, areas in enumerate(decoded.areas):
            _, entry = next(remaining)
            instance = Instance(
                pairs=decoded.pairs[decoded.starts[index] : decoded.starts[index + 1]],
                area=int(areas.sum()),
                mean_area=mean_nonzero(areas if entry.get("areas") is None else [a for a in entry["areas"] if a]),
                is_crowd=bool(entry.get("iscrowd", 0)),
                occlusion=_occlusion(entry.get("occlusion")),
            )
            video.instances.setdefault(entry["category_id"], []).append(instance)


def read_masks(segmentations: list, video: Video) -> tuple[list[str | list[int]], dict[int, str]]:
    """Counts of all frames' masks, and what is wrong with those that cannot be read, by frame."""
    # The common forms first: there may be millions of them.
    try:
        blank = empty_mask(video.pixels)
        masks = [blank if mask is None else mask["counts"] for mask in segmentations]
        sizes = [mask["size"] for mask in segmentations if mask is not None]
        if {*map(type, masks)} <= {str, list} and sizes.count([video.height, video.width]) == len(sizes):
            return masks, {}
    except (TypeError, KeyError, IndexError):
        pass
    masks, problems = [], {}
    for frame, mask in enumerate(segmentations):
        try:
            masks.append(read_segmentation(mask, video.height, video.width))
        except ValueError as error:
            problems[frame] = str(error)
    return masks, problems


def mean_nonzero(areas) -> float:
    """Mean of the areas that are not zero, 0 if all are."""
    areas = np.asarray(areas, dtype=np.float64)
    areas = areas[areas != 0]
    return float(areas.mean()) if areas.size else 0.0


def _occlusion(words: list | None) -> float | None:
    scores = sorted(OCCLUSION_SCORES[word] for word in words or [] if word is not None)
    if not scores:
        return None
    top_half = scores[-math.ceil(len(scores) / 2) :]
    return sum(top_half) / len(top_half)

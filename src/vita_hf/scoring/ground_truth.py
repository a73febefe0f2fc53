"""Annotated objects, decoded for scoring."""

import math
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.annotations import Annotation, AnnotationError, AnnotationFile, Problem, read_annotations
from ..data.annotations.values import id_order
from ..ops.rle import RleError, decode_tracks, empty_mask, read_segmentation

# OVIS: Qi et al., "Occluded Video Instance Segmentation: Dataset and ICCV 2021 Challenge", section 4, and its scorer
# `oviseval.py`. The json stores one level for each frame, null where the object is absent.
OCCLUSION_SCORES = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}

HARMLESS_KINDS = {"id", "annotation-id", "category-name", "frame-names"}


@dataclass(frozen=True)
class Instance:
    """
    One annotated object.

    Attributes:
        pairs: Int32 array (P, 2), the RLE of its masks over all frames, see [`vita_hf.ops.rle.decode`].
        area: Its pixels over all frames.
        mean_area: The mean of the file's non-zero `areas`, which decides whether it is small, medium or large.
        is_crowd: Whether predictions that match it are ignored.
        occlusion: A score from 0 to 0.75; None if the file has no levels for it.
    """

    pairs: np.ndarray
    area: int
    mean_area: float
    is_crowd: bool
    occlusion: float | None


@dataclass
class ScoredVideo:
    """A video's id and size, and its annotated objects by category, in the file's order."""

    id: int | str
    height: int
    width: int
    length: int
    instances: dict[Any, list[Instance]] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def read_masks(self, segmentations: Sequence[Any]) -> tuple[list[str | list[int]], dict[int, str]]:
        """
        Read the segmentations of a track's frames.

        Returns:
            The RLE counts of every frame, and by frame what is wrong with the segmentations that cannot be read.
        """
        # The common forms first, because there may be millions of masks.
        try:
            blank = empty_mask(self.pixels)
            masks = [blank if mask is None else mask["counts"] for mask in segmentations]
            sizes = [mask["size"] for mask in segmentations if mask is not None]
            if {*map(type, masks)} <= {str, list} and sizes.count([self.height, self.width]) == len(sizes):
                return masks, {}
        except (TypeError, KeyError, IndexError):
            pass
        masks, problems = [], {}
        for frame, mask in enumerate(segmentations):
            try:
                masks.append(read_segmentation(mask, self.height, self.width))
            except ValueError as error:
                problems[frame] = str(error)
        return masks, problems


class GroundTruth:
    """
    The videos, categories and annotated objects to score against.

    Args:
        references: The path of an annotation file, its content (`videos`, `categories`, `annotations`), or only the
            list of its annotations. A list gives sizes and lengths by its masks, names categories by their ids, and
            allows predictions in other videos and categories.
        forms: The form, or forms, to accept; see [`vita_hf.data.annotations.read_annotations`].

    Attributes:
        videos: Videos by id, in ascending order, which decides between equal scores in different videos.
        categories: Names by id, in ascending order of the ids.
        is_complete: Whether predictions in other videos or categories are errors.

    Raises:
        AnnotationError: if the annotations are malformed; lists all problems.
        FileNotFoundError: if there is no such file.
    """

    def __init__(self, references: str | os.PathLike | dict | list, forms: str | Collection[str] = ("ytvis", "tracks")):
        file = read_annotations(references, forms)
        self.is_complete = file.form != "tracks"
        problems = [problem for problem in file.problems if problem.kind not in HARMLESS_KINDS]
        if not file.has_annotations:
            message = (
                "it has no `annotations`. The official validation and test files carry none: their scores come from "
                "the evaluation servers; for a local score hold out videos of the training file"
            )
            problems.append(Problem("malformed", message, file.path))
        if self.is_complete:
            file.expect_categories()
        problems += file.unknown_categories(file.categories)
        self.categories = file.categories
        self.videos: dict[int | str, ScoredVideo] = {}
        for key in () if problems else sorted(file.videos, key=id_order):
            source = file.videos[key]
            self.videos[key] = ScoredVideo(key, source.height, source.width, source.length)
            problems += _read_objects(self.videos[key], source.annotations, file)
        if problems:
            raise AnnotationError(problems)

    def __iter__(self) -> Iterator[tuple[ScoredVideo, Any, Instance]]:
        """Yield every annotated object with its video and its category's id."""
        for video in self.videos.values():
            for category, instances in video.instances.items():
                for instance in instances:
                    yield video, category, instance

    def fingerprint(self) -> str:
        """Return a short text that differs between annotations that score differently, except for masks' shapes."""
        lines = [f"{v.id} {v.height} {v.width} {v.length}" for v in self.videos.values()]
        lines += [f"{v.id} {c} {i.area} {i.mean_area} {i.is_crowd} {i.occlusion}" for v, c, i in self]
        return f"{len(lines)}-{zlib.crc32(repr((lines, self.categories)).encode()):08x}"

    def category_names(self) -> dict[Any, str]:
        """Return names by id; append the id where several categories share a name."""
        uses = Counter(self.categories.values())
        return {key: name if uses[name] == 1 else f"{name} ({key})" for key, name in self.categories.items()}


def _read_objects(video: ScoredVideo, annotations: list[Annotation], file: AnnotationFile) -> list[Problem]:
    """Decode the masks of a video's annotations into its `instances`; returns the problems of masks."""
    problems = []

    def note(kind: str, annotation: Annotation, messages: dict[int, str]):
        place = (file.path, annotation.entry, video.id, annotation.id)
        problems.extend(Problem(kind, message, *place, frame) for frame, message in messages.items())

    tracks, readable = [], []
    for annotation in annotations:
        masks, unreadable = video.read_masks(annotation.segmentations)
        note("malformed", annotation, unreadable)
        if not unreadable:
            tracks.append(masks)
            readable.append(annotation)
    remaining = iter(readable)
    for batch in decode_tracks(tracks, video.pixels):
        if isinstance(batch, RleError):
            note("rle-corrupt", next(remaining), batch.problems)
            continue
        for areas, start, end, annotation in zip(batch.areas, batch.starts, batch.starts[1:], remaining):
            instance = Instance(
                pairs=batch.pairs[start:end],
                area=int(areas.sum()),
                mean_area=_mean_nonzero(areas if annotation.areas is None else [a for a in annotation.areas if a]),
                is_crowd=annotation.is_crowd,
                occlusion=_occlusion_score(annotation.occlusion),
            )
            video.instances.setdefault(annotation.category_id, []).append(instance)
    return problems


def _mean_nonzero(areas: Any) -> float:
    areas = np.asarray(areas, dtype=np.float64)
    areas = areas[areas != 0]
    return float(areas.mean()) if areas.size else 0.0


def _occlusion_score(levels: Sequence[str | None] | None) -> float | None:
    """Average the upper half (rounded up) of the scores of the frames that have a level."""
    scores = sorted(OCCLUSION_SCORES[level] for level in levels or () if level is not None)
    if not scores:
        return None
    upper_half = scores[-math.ceil(len(scores) / 2) :]
    return sum(upper_half) / len(upper_half)

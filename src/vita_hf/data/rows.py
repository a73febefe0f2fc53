"""Dataset rows from the videos of an annotation file."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..ops.rle import compress, read_polygon, read_segmentation, shorten
from .annotations import Annotation, AnnotationFile, Problem, Video
from .annotations.values import is_id
from .frames import find_frames


def make_row(
    video: Video,
    file: AnnotationFile,
    labels: Mapping[Any, int | None],
    images: str,
    follow_links: bool = False,
) -> tuple[dict[str, Any], list[Problem]]:
    """
    Make the row of one video.

    If the file has `bboxes`, an object is in a frame only if both its box and its segmentation are there, as in the
    reference. Files without `bboxes` are read by their segmentations alone.

    Args:
        video: One of the file's videos, with `file_names`.
        file: The annotation file, for the places of problems.
        labels: The class index of each known category id; None for categories that are dropped.
        images: The folder that the frame names are relative to.
        follow_links: Whether symbolic links may lead out of that folder.

    Returns:
        The row, with the features of [`schema.VIDEO_FEATURES`], and the problems of the names of the video's frames and
        of its masks. The row can be trained on if none of them is an error.
    """
    frames, problems = find_frames(video, file, images, follow_links)
    instances = []
    for annotation in video.annotations:

        def note(kind: str, message: str, frame: int, annotation: Annotation = annotation):
            place = (file.path, annotation.entry, video.id, annotation.id, frame, video.file_names[frame])
            problems.append(Problem(kind, message, *place))

        segmentations = _read_track(annotation, video, note)
        if file.form != "coco":  # there the reader has said so
            for frame, (box, segmentation) in enumerate(zip(annotation.boxes or (), annotation.segmentations)):
                if box and not segmentation:
                    note("no-mask", "the object has a box, but no mask", frame)
        label = labels.get(annotation.category_id, -1) if is_id(annotation.category_id) else -1
        if label is not None:
            instance = {"id": annotation.id, "label": label, "iscrowd": annotation.is_crowd}
            instances.append({**instance, "segmentations": segmentations})
    row = {"video_id": video.id, "height": video.height, "width": video.width}
    return {**row, "frames": frames, "instances": instances}, problems


def _read_track(
    annotation: Annotation, video: Video, note: Callable[[str, str, int], None]
) -> list[dict[str, Any] | None]:
    """Read the segmentation of every frame: None, or {"rle", "polygons"} with one of them set."""
    size = [video.height, video.width]
    track = []
    for frame, segmentation in enumerate(annotation.segmentations):
        mask = None
        if not segmentation or (annotation.boxes is not None and not annotation.boxes[frame]):
            pass
        elif isinstance(segmentation, dict):
            try:
                mask = {"rle": _read_rle(segmentation, size), "polygons": None}
            except ValueError as error:
                note(_kind_of_problem(segmentation, size), str(error), frame)
        elif isinstance(segmentation, list):
            polygons = []
            for index, polygon in enumerate(segmentation):
                try:
                    polygons.append(read_polygon(polygon))
                except ValueError as error:
                    note("polygon", f"polygon {index}: {error}", frame)
            mask = {"rle": None, "polygons": polygons} if polygons else None
        else:
            note("malformed", f"expected null, an RLE or polygons, got {shorten(segmentation)}", frame)
        track.append(mask)
    return track


def _read_rle(segmentation: dict[str, Any], size: list[int]) -> str:
    """Read the counts of an RLE as a compressed string; the content of strings is checked when they are decoded."""
    counts = read_segmentation(segmentation, *size)
    return counts if isinstance(counts, str) else compress(counts, math.prod(size))


def _kind_of_problem(segmentation: dict[str, Any], size: list[int]) -> str:
    """Return the kind of problem that `_read_rle` stopped at."""
    if segmentation.get("size", size) != size:
        return "rle-size"
    return "rle-corrupt" if isinstance(segmentation.get("counts"), list) else "malformed"

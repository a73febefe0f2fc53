"""The single reader for YouTube-VIS, OVIS and COCO annotation files."""

from .problems import KINDS, AnnotationError, InvalidInputError, Problem
from .reader import Annotation, AnnotationFile, Video, load_json, read_annotations

__all__ = [
    "KINDS",
    "Annotation",
    "AnnotationError",
    "AnnotationFile",
    "InvalidInputError",
    "Problem",
    "Video",
    "load_json",
    "read_annotations",
]

"""Problems of annotation files and predictions, and the errors that list them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...ops.rle import shorten

MAX_LISTED = 20

# fmt: off
ERRORS = (
    "malformed", "duplicate-id", "id", "annotation-id", "category-name", "frame-names", "unknown-video",
    "unknown-category", "length", "rle-size", "rle-corrupt", "frame-path", "frame-missing", "frame-unreadable",
    "frame-size",
)
# fmt: on
WARNINGS = ("annotation-id-zero", "areas", "occlusion", "no-mask", "polygon", "no-annotations")
KINDS = dict.fromkeys(ERRORS, "error") | dict.fromkeys(WARNINGS, "warning")
"""Every kind of problem and its severity in training: an error stops it, or costs the video with `skip_broken`.

Scoring is less strict about some ("id" and "annotation-id": not a 64-bit integer; "category-name"; "frame-names") and
stricter about others: the annotation id 0, which official scorers read as "unmatched", malformed `areas` and
`occlusion`, COCO's objects without a mask, and polygons of fewer than 3 points, which training drops.
"""


@dataclass(frozen=True)
class Problem:
    """
    One problem and its place.

    Attributes:
        kind: One of the names in [`KINDS`].
        message: What was read and what was expected.
        file: The path of the file; None for data in memory.
        entry: The entry of the file's tables, like "annotations[3]".
        video_id: The id of the video, or of COCO's image.
        annotation_id: The id of the annotation.
        frame: The frame's position in the video, from 0.
        frame_name: The frame's name in the annotation file.
    """

    kind: str
    message: str
    file: str | None
    entry: str | None = None
    video_id: object = None
    annotation_id: object = None
    frame: int | None = None
    frame_name: str | None = None

    @property
    def severity(self) -> str:
        return KINDS[self.kind]

    def __str__(self) -> str:
        ids = {"video": self.video_id, "annotation": self.annotation_id}
        named = ", ".join(f"{name} {shorten(key)}" for name, key in ids.items() if key is not None)
        places = [self.file, self.entry and self.entry + (f" ({named})" if named else "")]
        if self.frame is not None:
            places.append(f"frame {self.frame}" + (f" ({self.frame_name[-200:]})" if self.frame_name else ""))
        place = ", ".join(filter(None, places))
        return f"{place}: {self.message}" if place else self.message


class InvalidInputError(ValueError):
    """Annotations or predictions that cannot be used; `problems` has all problems, the message the first 20."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = list(problems)
        lines = [str(problem) for problem in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            lines.append(f"… and {len(self.problems) - MAX_LISTED} more")
        super().__init__("\n".join(lines))

    def __reduce__(self):  # errors of worker processes are pickled
        return type(self), (self.problems,)


class AnnotationError(InvalidInputError):
    """Annotations that cannot be used."""

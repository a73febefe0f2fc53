"""What can be wrong with a data set, in words that lead to the place."""

from dataclasses import dataclass

MAX_LISTED = 20


@dataclass(frozen=True)
class Problem:
    """
    One fault.

    Attributes:
        kind: what sort of fault, one of the names in [`KINDS`].
        message: what was found and what was expected.
        file: the annotation file.
        video_id: the video's (or image's) id, where there is one.
        annotation_id: the annotation's.
        frame: its index, from 0.
        frame_name: the frame's file name in the annotation file.
    """

    kind: str
    message: str
    file: str
    video_id: object = None
    annotation_id: object = None
    frame: int | None = None
    frame_name: str | None = None

    @property
    def severity(self) -> str:
        """Either "error": training stops or, with `skip_broken`, goes without the video; or "warning": it goes on."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        where = [self.file]
        if self.video_id is not None:
            where.append(f"video {self.video_id}")
        if self.annotation_id is not None:
            where.append(f"annotation {self.annotation_id}")
        if self.frame is not None:
            where.append(f"frame {self.frame}" + (f" ({self.frame_name})" if self.frame_name else ""))
        return f"{', '.join(where)}: {self.message}"


KINDS = {
    "malformed": "error",
    "duplicate-id": "error",
    "unknown-video": "error",
    "unknown-category": "error",
    "length": "error",
    "rle-size": "error",
    "rle-corrupt": "error",
    "polygon": "warning",
    "no-annotations": "warning",
    "frame-missing": "error",
    "frame-unreadable": "error",
    "frame-size": "error",
}
"""Every kind of fault and its severity. Polygons with under 3 points are dropped in training, hence the warning."""


class AnnotationError(ValueError):
    """An annotation file that cannot be trained on; `problems` has the reasons."""

    def __init__(self, problems: list[Problem]):
        self.problems = list(problems)
        lines = [str(problem) for problem in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            lines.append(f"… and {len(self.problems) - MAX_LISTED} more")
        super().__init__("\n".join(lines))

    def __reduce__(self):
        return type(self), (self.problems,)


__all__ = ["KINDS", "AnnotationError", "Problem"]

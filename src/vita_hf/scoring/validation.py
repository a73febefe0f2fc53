"""What is wrong with the input, entry by entry, before anything is scored."""

from typing import Any

from ..ops.rle import shorten

MAX_LISTED = 20


class InvalidInputError(ValueError):
    """Annotations or predictions that cannot be scored.

    Attributes:
        problems: every problem found, one line each, naming the entry and what was expected of it.
    """

    def __init__(self, subject: str, problems: list[str]):
        self.problems = list(problems)
        more = len(self.problems) - MAX_LISTED
        lines = self.problems[:MAX_LISTED] + ([f"… and {more} more"] if more > 0 else [])
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) > 1 else "")
        super().__init__(f"{subject}: {count}\n" + "\n".join(f"- {line}" for line in lines))


def some(values, limit: int = 8) -> str:
    """The first few of some values, as a text."""
    values = list(values)
    return ", ".join(map(str, values[:limit])) + (f", … ({len(values)})" if len(values) > limit else "")


def is_id(value: Any) -> bool:
    """Whether a value can name a video, a category or an annotation: an integer or a string."""
    return type(value) is int or isinstance(value, str) or is_integer(value)


def is_integer(value: Any) -> bool:
    """Whether a value is an integer (numpy's included), a bool is none."""
    return not isinstance(value, bool) and hasattr(value, "__index__")


__all__ = ["InvalidInputError", "is_id", "is_integer", "shorten", "some"]

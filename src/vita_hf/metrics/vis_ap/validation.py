"""What is wrong with the input, entry by entry, before anything is scored."""

from typing import Any

MAX_LISTED = 20

# Compressed counts write a number in base 32, low digits first, each as the character 48 + digit, plus 32 while more
# digits follow. The 3rd and later numbers of a mask are differences to the number two places before.
MAX_DIGITS = 6  # 30 signed bits


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


class CorruptError(Exception):
    """Some mask of those given has no valid counts; `rle.explain_corruption` tells which, and what is wrong."""


def shorten(value: Any, limit: int = 60) -> str:
    """`repr` of a value, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


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

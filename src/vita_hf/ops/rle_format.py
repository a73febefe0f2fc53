"""COCO's compressed run-length encoding: limits and errors."""

from typing import Any

# Compressed counts write a number in base 32, low digits first, each as the character 48 + digit, plus 32 while more
# digits follow. The 3rd and later numbers of a mask are differences to the number two places before.
MAX_DIGITS = 6  # 30 signed bits


class CorruptError(Exception):
    """Some mask of those given has no valid counts; `rle.explain_corruption` tells which, and what is wrong."""


def shorten(value: Any, limit: int = 60) -> str:
    """`repr` of a value, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"

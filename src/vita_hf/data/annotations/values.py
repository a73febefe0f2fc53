"""Checks of single json values, and short texts that show them."""

import math
from collections.abc import Collection
from itertools import islice
from typing import Any, TypeGuard

from ...ops.rle import shorten


def is_integer(value: Any) -> TypeGuard[int]:
    """Tell whether a value is an integer, numpy's included; bools are not integers here."""
    return not isinstance(value, bool) and hasattr(value, "__index__")


def is_id(value: Any) -> TypeGuard[int | str]:
    """Tell whether a value can be an id: an integer or a string."""
    return isinstance(value, str) or is_integer(value)


def is_list(value: Any) -> TypeGuard[list | tuple]:
    """Tell whether a value is a list, as json has it, or a tuple."""
    return isinstance(value, (list, tuple))


def is_finite(value: Any) -> bool:
    """Tell whether a value is a number that a finite float64 can hold."""
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def id_order(key: int | str) -> tuple[bool, int | str]:
    """Sort ids by this key: integers in ascending order, then strings."""
    return isinstance(key, str), key


def some(values: Collection, limit: int = 8) -> str:
    """Join the first few values to a short text; strings without quotes."""
    texts = [value if isinstance(value, str) and len(value) < 60 else shorten(value) for value in islice(values, limit)]
    return ", ".join(texts) + (f", … ({len(values)})" if len(values) > limit else "")

"""Find classes by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..text import did_you_mean


def label_indices(labels: int | str | Sequence[int | str], id2label: Mapping[Any, str] | None) -> list[int]:
    """
    Find the indices of one or several classes, given by name or index.

    Raises:
        ValueError: if there is no such class; the message names close matches.

    Example:
    ```python
    >>> from vita_hf.tracks.labels import label_indices

    >>> label_indices(["dog", 2], {0: "cat", 1: "dog", 2: "bird"})
    [1, 2]
    >>> label_indices("Dog", {0: "cat", 1: "dog", 2: "bird"})
    Traceback (most recent call last):
    ValueError: unknown class 'Dog'; did you mean 'dog'?

    ```
    """
    names = id2label or {}
    indices = []
    for label in [labels] if isinstance(labels, int | str) else labels:
        if isinstance(label, str):
            found = [index for index, name in names.items() if name == label]
        else:
            found = [label] if label in names or id2label is None else []
        if not found:
            known = sorted(set(names.values()))
            hint = did_you_mean(str(label), known) or f": the classes are {', '.join(known)}"
            raise ValueError(f"unknown class {label!r}{hint}")
        indices += found
    return indices


__all__ = ["label_indices"]

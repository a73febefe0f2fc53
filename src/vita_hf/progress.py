"""Progress bars on terminals and in notebooks, and an occasional line in logs."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

_SECONDS_BETWEEN_LINES = 60


def progress_bar(
    iterable: Iterable | None = None,
    *,
    description: str,
    total: int | None,
    unit: str,
    shown: bool | None,
    **kwargs: Any,
) -> tqdm:
    """
    Make a tqdm bar on standard error, to iterate over or to `update()`.

    Args:
        iterable: What to iterate over.
        description: What is done, and to what.
        total: Number of items, or None if unknown.
        unit: What an item is, in the singular.
        shown: False never shows anything. True shows a bar on a terminal and in a notebook, and otherwise, as in a log,
            a line every minute. None shows the bar only.
        kwargs: Further arguments of tqdm.
    """
    interactive = sys.stderr.isatty() or "ipykernel" in sys.modules
    if shown and not interactive:
        kwargs |= {
            "file": _Lines(),
            "bar_format": "{desc}: {n_fmt} of {total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
            "leave": False,
            "delay": _SECONDS_BETWEEN_LINES,
            "mininterval": _SECONDS_BETWEEN_LINES,
            "maxinterval": _SECONDS_BETWEEN_LINES,
        }
    disable = not (interactive if shown is None else shown)
    return tqdm(
        iterable, desc=description, total=total, unit=unit, disable=disable, dynamic_ncols=interactive, **kwargs
    )


class _Lines:
    """Where tqdm writes to for a log: a line for each state of the bar."""

    def write(self, text: str) -> None:
        if text := text.strip():
            sys.stderr.write(f"{text}\n")

    def flush(self) -> None:
        sys.stderr.flush()


__all__ = ["progress_bar"]

"""Wording of messages."""

import difflib
from collections.abc import Iterable
from pathlib import PurePath
from urllib.parse import urlsplit

_IRREGULAR = {"class": "classes", "category": "categories", "process": "processes", "query": "queries"}


def counted(number: int, noun: str) -> str:
    """
    Write a number and its noun, with a plural where there should be one.

    Example:
    ```python
    >>> from vita_hf.text import counted

    >>> counted(1, "frame"), counted(0, "category"), counted(1200, "video")
    ('1 frame', '0 categories', '1200 videos')

    ```
    """
    return f"{number} {noun if number == 1 else _IRREGULAR.get(noun, noun + 's')}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    Ask whether one of the known names was meant; empty if none is close.

    Example:
    ```python
    >>> from vita_hf.text import did_you_mean

    >>> did_you_mean("Persn", ["person", "dog"]), did_you_mean("zebra", ["person", "dog"])
    ("; did you mean 'person'?", '')

    ```
    """
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f"; did you mean {' or '.join(repr(by_lower[other]) for other in close)}?" if close else ""


def short_name(name: str) -> str:
    """
    Return the last part of a path or an address, without its query.

    Example:
    ```python
    >>> from vita_hf.text import short_name

    >>> short_name("videos/clip.mp4"), short_name("https://host/clip.mp4?token=1"), short_name("the video")
    ('clip.mp4', 'clip.mp4', 'the video')

    ```
    """
    return PurePath(urlsplit(name).path if name.startswith("http") else name).name


__all__ = ["counted", "did_you_mean", "short_name"]

"""Mutations of json values and bytes."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_HUGE = "@huge@"  # stands for numbers that Python's json cannot write
_HUGE_NUMBERS = ("1" + "0" * 400, "1e400", "-1e400", "1e308", "9" * 5000, "NaN", "-Infinity")

# fmt: off
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 256, 1000, 65536, 10**6, 10**9, 2**29, 2**31, 2**32, 2**62, 2**63 - 1,
    2**63, -(2**63) - 1, 2**64, 2**64 + 5, 10**30, 0.5, -0.5, 1.0, 1e-320, 1e7, 1e8, 1e18, 1e300, _HUGE,
    "", "1", "a", "\0", "\ud800", "../../etc/passwd", "/dev/zero", ".", "\u732b" * 3, "x" * 300, "x" * 20_000,
    [], {}, [[]], [None], [0], [1, 2], [[0, 0, 1, 1]], {"": None}, {"size": [1, 1], "counts": "1"}, [0.0] * 5,
    [4] * 3000,
)
# fmt: on


def mutate_json(rng: random.Random, content: Any) -> bytes:
    """Change one or several places of a json value, and write it, sometimes damaged."""
    text = json.dumps(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        with suppress(RecursionError):  # nested too deeply for Python's json
            changed = json.dumps(_mutate_node(rng, json.loads(text)))
            text = changed if len(changed) < 100_000 else text
    while f'"{_HUGE}"' in text:
        text = text.replace(f'"{_HUGE}"', rng.choice(_HUGE_NUMBERS), 1)
    data = text.encode()
    if rng.random() < 0.1:
        data = mutate_bytes(rng, data)
    if rng.random() < 0.02:
        data = text.encode(rng.choice(("utf-8-sig", "utf-16", "utf-32", "latin-1")))
    return data


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Change, remove, insert, repeat or move some bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        start = rng.randrange(len(changed) + 1)
        end = min(len(changed), start + rng.choice((1, 1, 2, 4, 8, 64, 1024)))
        piece = changed[start:end]
        match rng.randrange(7):
            case 0 if piece:
                changed[start] ^= 1 << rng.randrange(8)
            case 1:
                changed[start:end] = rng.randbytes(len(piece))
            case 2:
                del changed[start:end]
            case 3:
                del changed[start:]
            case 4:
                changed[start:start] = piece * rng.choice((1, 2, 100))
            case 5:
                changed[start:end] = rng.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff")) * len(piece)
            case 6:
                other = rng.randrange(len(changed) + 1)
                changed[other : other + len(piece)] = piece
    return bytes(changed[:1_000_000])


def _mutate_node(rng: random.Random, root: Any) -> Any:
    """Change a random place: replace, remove, copy or nest a value."""
    holder = [root]
    places = [(holder, 0), *_places(root)]
    parent, key = rng.choice(places)
    change: Callable[[], Any] = rng.choice(
        (
            lambda: parent.__setitem__(key, _copy((HOSTILE, rng.randrange(len(HOSTILE))))),
            lambda: parent.__setitem__(key, _copy((HOSTILE, rng.randrange(len(HOSTILE))))),
            lambda: parent.__setitem__(key, _near(rng, parent[key])),
            lambda: parent.__delitem__(key) if parent is not holder else None,
            lambda: parent.__setitem__(key, _copy(rng.choice(places))),
            lambda: parent.__setitem__(key, [_copy((parent, key)) for _ in range(rng.choice((1, 2, 30)))]),
            lambda: parent.insert(key, _copy((parent, key))) if isinstance(parent, list) else None,
            lambda: parent.__setitem__(key, _nest(rng, parent[key])),
        )
    )
    change()
    return holder[0]


def _places(value: Any, limit: int = 2000) -> list[tuple[Any, Any]]:
    """List (container, key) of everything inside a value, outer values first."""
    places: list[tuple[Any, Any]] = []
    queue = [value]
    for container in queue:
        keys = (
            container if isinstance(container, dict) else range(len(container)) if isinstance(container, list) else ()
        )
        places += [(container, key) for key in keys]
        queue += [container[key] for key in keys if isinstance(container[key], (dict, list))]
        if len(places) > limit:
            break
    return places


def _copy(place: tuple[Any, Any]) -> Any:
    return json.loads(json.dumps(place[0][place[1]]))


def _near(rng: random.Random, value: Any) -> Any:
    """Change a value a little, and keep its type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice((value + 1, value - 1, -value, value * 2, value * 1000, float(value), str(value)))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + value, value + "\xe9", value.upper(), f" {value}", value[1:]))
    if isinstance(value, list):
        return rng.choice((value[:-1], value + value, value[::-1], [*value, None]))
    return value


def _nest(rng: random.Random, value: Any) -> Any:
    for _ in range(rng.choice((1, 2, 300))):  # json.dumps refuses 1,000
        value = [value]
    return value

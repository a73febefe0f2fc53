"""Files that are either whole or not there."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced_when_done(path: str | os.PathLike) -> Iterator[Path]:
    """
    Gives a path beside `path` to write to, which takes its place when the block ends, and is removed if it fails.

    Makes the folder where it is not there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file that is either whole or not there."""
    with replaced_when_done(path) as temporary:
        temporary.write_bytes(content)


__all__ = ["replaced_when_done", "write_atomically"]

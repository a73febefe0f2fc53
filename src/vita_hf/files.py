"""Files that are either whole or not there."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced_when_done(path: str | os.PathLike) -> Iterator[Path]:
    """
    Gives a path beside `path` to write to, which takes its place when the block ends, and is removed if it fails.

    What is written may be a file or a folder; the path has the suffix of `path`, by which writers know the format.
    Makes the folder it is in where that is not there. A folder only takes the place of an empty one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file that is either whole or not there."""
    with replaced_when_done(path) as temporary:
        temporary.write_bytes(content)


__all__ = ["replaced_when_done", "write_atomically"]

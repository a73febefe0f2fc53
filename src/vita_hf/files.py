"""Writing files that are either whole or not there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced_when_done(path: str | os.PathLike) -> Iterator[Path]:
    """
    Lend a path beside `path` to write a file or a folder to, and rename it to `path` once the block is left.

    The name is hidden and keeps the suffix, by which writers know the format. If the block raises, what it has written
    is removed, and what was at `path` before stays as it was.

    Raises:
        FileExistsError: A folder was written, and `path` is a file or a folder that isn't empty.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary = workplace / path.name
        yield temporary
        if temporary.is_dir() and path.is_file():
            raise FileExistsError(f"{path} is a file; a folder was to be written")
        try:
            os.replace(temporary, path)
        except OSError as error:
            if temporary.is_dir() and path.is_dir():
                raise FileExistsError(f"{path} is a folder that isn't empty: remove it or choose another") from error
            raise
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file that is either whole or not there."""
    with replaced_when_done(path) as temporary:
        temporary.write_bytes(content)


__all__ = ["replaced_when_done", "write_atomically"]

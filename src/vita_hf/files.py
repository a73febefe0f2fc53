"""Write files and folders atomically, and record what they were made from."""

import json
import os
import shutil
import uuid
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file completely or not at all; see [`atomic_path`]."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Generator[Path]:
    """
    Yield a temporary path beside `path`. It replaces `path` when the block ends.

    The temporary path keeps the suffix of `path`, from which writers infer the format, and is removed if the block
    fails. Missing parent folders are created. To replace a folder that is not empty, use [`atomic_directory`].
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def atomic_directory(path: str | os.PathLike) -> Generator[Path]:
    """
    Yield a new, empty folder beside `path`, which takes the place of `path` when the block ends.

    An existing folder at `path` is removed only once the new one is in place. If the block fails, `path`
    stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = _beside(path), _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rename(aside)
        temporary.rename(path)
    finally:
        if aside.exists() and not path.exists():
            aside.rename(path)
        _remove(temporary)
        _remove(aside)


@dataclass(frozen=True)
class RunRecord:
    """
    What a folder was made from, kept as json inside it. A later run compares its inputs with this record before it
    continues.

    Attributes:
        path: The json file.
        inputs: Plain json values; mappings may be nested.
        free: Dotted names, or prefixes of names, of inputs that may change between runs.

    Example:
    ```python
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vita_hf.files import RunRecord

    >>> path = Path(tempfile.mkdtemp(), "run.json")
    >>> RunRecord(path, {"model": "a", "options": {"top_k": 10}}).write()
    >>> RunRecord(path, {"model": "a", "options": {"top_k": 20}}).changes()
    ['options.top_k']

    ```
    """

    path: Path
    inputs: Mapping[str, Any]
    free: Collection[str] = ()

    def changes(self) -> list[str] | None:
        """List the dotted names of the inputs that differ from the record on disk; None if there is no record."""
        if not self.path.is_file():
            return None
        before, now = flatten(json.loads(self.path.read_bytes())), flatten(json.loads(json.dumps(self.inputs)))
        changed = (name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        return sorted(name for name in changed if not name.startswith(tuple(self.free)))

    def matches(self) -> bool:
        """Tell whether the folder has a record; raise a `FileExistsError` if that record has other inputs."""
        changes = self.changes()
        if changes:
            raise FileExistsError(
                f"{self.path.parent} holds results of another run ({', '.join(changes)} differ): choose another output "
                "folder, or remove or overwrite this one"
            )
        return changes is not None

    def write(self) -> None:
        """Write the record, replacing an earlier one."""
        write_atomically(self.path, json.dumps(self.inputs, indent=2).encode())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _beside(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}.{path.name}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


__all__ = ["RunRecord", "atomic_directory", "atomic_path", "flatten", "write_atomically"]

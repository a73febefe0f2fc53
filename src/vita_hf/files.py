"""Write files and folders atomically, under safe names, and record what they were made from."""

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import time
import unicodedata
import uuid
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

UNFINISHED = ".unfinished"
"""The file that marks a folder whose files were being replaced, see [`replace_files`]."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.")  # how the names of temporary files and folders begin
_MAX_NAME_BYTES = 200  # file systems allow 255, and temporary names are longer
_RESERVED = {
    *("con", "conin$", "conout$", "prn", "aux", "nul"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"),
}


def output_name(name: str) -> str:
    """
    Make a name from a foreign source safe for a file or folder that is written, on every system.

    Most names stay as they are. In others, separators and control characters become `_`, dots and spaces are stripped
    from both ends, and what is too long is cut. A hash of the given name is then appended: different names stay so.

    Example:
    ```python
    >>> from vita_hf.files import output_name

    >>> output_name("clip 1")
    'clip 1'
    >>> output_name("../../etc")
    '_.._etc-74ccf3c5'

    ```
    """
    safe = "".join("_" if _is_unsafe(character) else character for character in name).strip(". ")
    if safe.partition(".")[0].rstrip().lower() in _RESERVED:
        safe = f"_{safe}"
    if len(safe.encode()) > _MAX_NAME_BYTES:
        safe = safe.encode()[: _MAX_NAME_BYTES - 9].decode(errors="ignore")
    if safe and safe == name:
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{safe or 'unnamed'}-{digest}"


def _is_unsafe(character: str) -> bool:
    return character in '<>:"/\\|?*' or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def path_below(folder: str | os.PathLike, name: str, follow_links: bool = False) -> str:
    """
    Join a folder and a file name from a foreign source, such as an annotation file.

    Args:
        folder: The folder that the name is relative to; may itself be, or lie below, a symbolic link.
        name: The name.
        follow_links: Whether symbolic links in the folder may lead out of it.

    Raises:
        ValueError: if the path is not below the folder.
    """
    first = os.path.normpath(name).split(os.sep)[0]
    if "\0" in name or os.path.isabs(name) or os.path.splitdrive(name)[0] or first in (os.curdir, os.pardir):
        raise ValueError(f"expected a name relative to the folder of images, and below it, got {name!r}")
    path = os.path.join(folder, name)
    if not follow_links and _leads_out(folder, name):
        raise ValueError(f"{name!r} is or passes a symbolic link that leads out of {folder}; --follow-links accepts it")
    return path


def _leads_out(folder: str | os.PathLike, name: str) -> bool:
    """Tell whether a symbolic link in the folder leads out of it. Links are rare: mostly, no path is resolved."""
    path = os.fspath(folder)
    for part in Path(name).parts:
        path = os.path.join(path, part)
        if os.path.islink(path):
            whole = os.path.realpath(os.path.join(folder, name))
            return not whole.startswith(os.path.join(os.path.realpath(folder), ""))
    return False


def hash_content(file: str | os.PathLike | IO[bytes]) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits; an open file is read from its start."""
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as opened:
            return hash_content(opened)
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


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


@contextmanager
def replace_files(folder: str | os.PathLike, last: str, obsolete: Collection[str] = ()) -> Generator[Path]:
    """
    Yield an empty temporary folder. Its files are moved into `folder` when the block ends; other files there stay.

    A new folder appears complete. In an existing one, the file `last` is removed first and moved last: while it is
    there, all files are of one run. A process that is killed in between, or a block that does not write `last`, leaves
    the file [`UNFINISHED`] in the folder. If the block fails, `folder` stays as it was.

    Args:
        folder: The folder to write.
        last: The name of a file that tells that the folder is complete.
        obsolete: Names of files of earlier runs to remove.

    Raises:
        FileExistsError: if another process wrote the new folder meanwhile; its files stay.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    temporary = _beside(folder if is_new else folder / "files")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(temporary.parent)
    temporary.mkdir()
    try:
        yield temporary
        if not (temporary / last).exists():
            (temporary / UNFINISHED).touch()
        if is_new:
            _rename_to_new(temporary, folder)
        else:
            with _locked(folder):
                _move_files(temporary, folder, last, obsolete)
    finally:
        _remove(temporary)


def _rename_to_new(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise
        raise FileExistsError(f"{folder} was written by another process meanwhile") from error


def _move_files(temporary: Path, folder: Path, last: str, obsolete: Collection[str]) -> None:
    marker = folder / UNFINISHED
    if (folder / last).exists():
        (folder / last).replace(marker)
    else:
        marker.touch()
    for name in obsolete:
        (folder / name).unlink(missing_ok=True)
    for file in sorted(temporary.iterdir(), key=lambda file: file.name == last):
        file.replace(folder / file.name)
    if (folder / last).exists():
        marker.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Keep other processes from the same block, where the system can lock folders. The lock ends with the process."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_writable(folder: str | os.PathLike) -> None:
    """
    Fail now, not after hours of work, if files cannot be written to a folder, which need not exist.

    Raises:
        OSError: if the folder, or the nearest existing one above it, cannot be written to or is not a folder.
    """
    try:
        with tempfile.TemporaryFile(dir=_nearest_existing(folder)):
            pass
    except OSError as error:
        raise type(error)(f"cannot write to the folder {folder}: {error.strerror}") from error


def check_space(folder: str | os.PathLike, size: int, remedy: str) -> None:
    """
    Fail now if a folder, which need not exist, has less space than some bytes that are going to be written.

    Raises:
        OSError: if it has; the message names the remedy.
    """
    free = shutil.disk_usage(_nearest_existing(folder)).free
    if free < size:
        needed = f"about {math.ceil(size / 2**20)} MiB are needed"
        raise OSError(f"not enough space in {folder}: {free // 2**20} MiB are free, {needed}; {remedy}")


def _nearest_existing(folder: str | os.PathLike) -> Path:
    place = Path(os.path.abspath(folder))
    return next(path for path in (place, *place.parents) if path.exists() or path.is_symlink())


def remove_leftovers(folder: str | os.PathLike, seconds: float = 3600) -> None:
    """
    Remove temporary files and folders that killed processes left in a folder.

    Only names that this module gives are removed, and only if nothing was written there for some seconds: it may belong
    to a process that is alive.
    """
    for path in Path(folder).iterdir() if Path(folder).is_dir() else ():
        if _TEMPORARY.match(path.name) and time.time() - _last_change(path) > seconds:
            _remove(path)


def _last_change(path: Path) -> float:
    """Return when a file, or a folder or its content, was last written; infinity if it is gone."""
    try:
        return max(part.stat().st_mtime for part in (path, *(path.rglob("*") if path.is_dir() else ())))
    except OSError:
        return float("inf")


def remove_folder(folder: str | os.PathLike) -> None:
    """Remove a folder that this package wrote. It is gone at once: interrupted, no part of it is left in its place."""
    folder = Path(folder)
    if folder.exists():
        aside = _beside(folder)
        folder.rename(aside)
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
        """
        List the dotted names of the inputs that differ from the record on disk; None if there is no record.

        Raises:
            ValueError: if the file is something else than a record.
        """
        if not self.path.is_file():
            return None
        now = flatten(json.loads(json.dumps(self.inputs)))
        try:
            before = flatten(json.loads(self.path.read_bytes()))
        except (AttributeError, RecursionError, ValueError):
            before = {}
        if not before.keys() & now.keys():
            raise ValueError(f"{self.path}: expected the record of an earlier run, but it is something else")
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

    def matches_or_is_new(self, files: Collection[str]) -> bool:
        """
        Like `matches`, for a folder without a record that must not have certain files: another program wrote them.

        Raises:
            FileExistsError: if the record has other inputs, or one of the files exists without a record.
        """
        if self.matches():
            return True
        for name in files:
            if (self.path.parent / name).exists():
                path = self.path.parent / name
                raise FileExistsError(f"{path} was not written by an earlier run: choose another output folder")
        return False

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
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


__all__ = [
    "UNFINISHED",
    "RunRecord",
    "atomic_directory",
    "atomic_path",
    "check_space",
    "check_writable",
    "flatten",
    "hash_content",
    "output_name",
    "path_below",
    "remove_folder",
    "remove_leftovers",
    "replace_files",
    "write_atomically",
]

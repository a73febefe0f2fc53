"""The training log."""

import json
from pathlib import Path
from typing import Any

from ..files import write_atomically


class TrainingLog:
    """
    A file with one json object per line: means of the loss terms over some steps, or scores.

    Args:
        path: The file.
        enabled: Whether this process writes it; exactly one process should.
    """

    def __init__(self, path: Path, enabled: bool = True):
        self.path, self.enabled = path, enabled

    def entries(self) -> list[dict[str, Any]]:
        """Read all entries, except for a last line that a crash cut short."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def rewind(self, step: int) -> None:
        """Remove the entries of later steps."""
        if self.enabled:
            kept = [entry for entry in self.entries() if entry["step"] <= step]
            write_atomically(self.path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())

    def write(self, entry: dict[str, Any]) -> None:
        """Append an entry, which has at least the key `step`."""
        if self.enabled:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


__all__ = ["TrainingLog"]

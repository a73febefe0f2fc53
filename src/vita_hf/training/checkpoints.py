"""Training checkpoints: whole or not there, the newest few kept, the newest complete one found again."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..files import write_atomically

logger = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{9})")
_STATE = "training_state.json"


class Checkpoints:
    """
    The checkpoints of one training, in `folder/step-<number>/`.

    A checkpoint is written into a folder of another name and renamed when everything is in it: a crash or a full disk
    leaves the earlier ones as they were.

    Args:
        folder: where they are.
        keep: how many of the newest are kept, at least 1.
    """

    def __init__(self, folder: Path, keep: int):
        if keep < 1:
            raise ValueError(f"keep: expected at least 1 checkpoint, got {keep}")
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """The complete ones' steps, ascending."""
        if not self.folder.is_dir():
            return []
        found = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match, path in found if match and (path / _STATE).is_file())

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}"

    def save(self, accelerator: Accelerator, step: int, state: dict[str, Any]) -> None:
        """Save weights, optimiser, gradient scaler and `state` (plain values); to be called in every process."""
        partial = self.folder / f"partial-{step:09d}"
        if accelerator.is_main_process:
            for unfinished in self.folder.glob("partial-*"):  # of a crash, or of a full disk
                shutil.rmtree(unfinished, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_atomically(partial / _STATE, json.dumps({"step": step, **state}).encode())
            shutil.rmtree(self.path(step), ignore_errors=True)
            partial.rename(self.path(step))
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self.path(old))
        accelerator.wait_for_everyone()

    def read_state(self, step: int) -> dict[str, Any]:
        return json.loads((self.path(step) / _STATE).read_text())

    def load(self, accelerator: Accelerator, step: int) -> None:
        """Load weights, optimiser and gradient scaler; to be called in every process after `accelerator.prepare`."""
        accelerator.load_state(str(self.path(step)))


__all__ = ["Checkpoints"]

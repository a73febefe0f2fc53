"""Training checkpoints."""

import json
import re
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..files import atomic_directory, remove_folder, remove_leftovers
from ..inference.loading import first_line

_NAME = re.compile(r"step-(\d{9})")
_STATE = "training_state.json"


class Checkpoints:
    """
    The checkpoints of one training, in `folder/step-<number>/`. Each is written atomically.

    Args:
        folder: The directory of all checkpoints.
        keep: Number of newest checkpoints to keep, at least 1.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """List the steps that have a checkpoint, in ascending order."""
        matches = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Return the directory of a step's checkpoint."""
        return self.folder / f"step-{step:09d}"

    def save(self, accelerator: Accelerator, step: int, state: dict[str, Any]) -> None:
        """Save what `accelerator` prepared, random states, and `state` (plain values). Call this in every process."""
        with ExitStack() as stack:
            unfinished = [None]
            if accelerator.is_main_process:
                remove_leftovers(self.folder, seconds=0)  # no other process writes here
                unfinished = [stack.enter_context(atomic_directory(self.path(step)))]
            (folder,) = broadcast_object_list(unfinished)
            accelerator.save_state(str(folder))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                (folder / _STATE).write_text(json.dumps(state))
        if accelerator.is_main_process:
            for old in self.steps()[: -self.keep]:
                remove_folder(self.path(old))
        accelerator.wait_for_everyone()

    def remove(self) -> None:
        """Remove all checkpoints, the newest first: stopped in between, those that are left are complete."""
        for step in reversed(self.steps()):
            remove_folder(self.path(step))
        remove_leftovers(self.folder, seconds=0)

    def load(self, accelerator: Accelerator, step: int, names: Collection[str]) -> dict[str, Any]:
        """
        Load a checkpoint into what `accelerator` prepared. Call this in every process.

        Returns:
            The values of these names in its `state`.

        Raises:
            ValueError: if the checkpoint is damaged.
        """
        folder = self.path(step)
        try:
            accelerator.load_state(str(folder))
            state = json.loads((folder / _STATE).read_bytes())
            return {name: state[name] for name in names}
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # damaged files make torch, safetensors and pickle raise almost anything
            message = f"the checkpoint {folder} cannot be loaded ({first_line(error)})"
            raise ValueError(f"{message}: remove it to continue from an earlier one") from error

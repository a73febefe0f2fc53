"""Checkpoints on disk: what is loaded is what was saved; damaged ones are named."""

import json
import os

import pytest
import torch
from accelerate import Accelerator

from vita_hf.training.checkpoints import Checkpoints


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of step 3, and what loads it."""
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(2, 2)
    accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(accelerator, 3, {"skipped": 4, "place": [5]})
    return checkpoints.path(3), lambda: checkpoints.load(accelerator, 3, ["skipped", "place"])


def test_state(saved):
    assert saved[1]() == {"skipped": 4, "place": [5]}


class Planted:
    def __reduce__(self):
        return os.mkdir, ("planted",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("training_state.json", b""),
        ("training_state.json", b"[]"),
        ("training_state.json", json.dumps({"skipped": 1}).encode()),
        ("model.safetensors", b"\x10"),
        ("model.safetensors", None),
        ("optimizer.bin", b"PK"),
        ("optimizer.bin", Planted()),
    ],
)
def test_damaged_checkpoints(saved, tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    folder, load = saved
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        torch.save(content, folder / name)
    with pytest.raises(
        ValueError, match=r"step-000000003 cannot be loaded \(.+\): remove it to continue from an earlier"
    ):
        load()
    assert not os.path.exists("planted")

"""Files and folders are written completely or not at all, and runs remember their inputs."""

import os
from pathlib import Path

import pytest

from vita_hf.files import RunRecord, atomic_directory, write_atomically


def full_disk(*_):
    raise OSError("No space left on device")


def test_file_stays_as_it_was_if_writing_fails(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", b"before")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_directory_replaces_another_with_all_its_content(tmp_path):
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "out") as folder:
            (folder / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["out", "out/new"]


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("fail", [full_disk, interrupt])
@pytest.mark.parametrize("step", ["write", "rename"])
def test_directory_stays_as_it_was_if_writing_fails(tmp_path, monkeypatch, step, fail):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    rename = Path.rename

    def fail_for_the_new_one(path, target):
        return fail() if (path / "new").exists() else rename(path, target)

    with pytest.raises((OSError, KeyboardInterrupt)), atomic_directory(tmp_path / "out") as folder:
        if step == "write":
            fail()
        (folder / "new").touch()
        monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["out", "out/old"]


def test_run_record_names_changed_inputs(tmp_path):
    path = tmp_path / "run.json"
    record = RunRecord(path, {"model": {"config.json": [1, 2]}, "top_k": 10})
    assert record.changes() is None and not record.matches()
    record.write()
    assert record.matches()
    other = {"model": {"config.json": [1, 3]}, "top_k": 10, "dtype": "float16"}
    with pytest.raises(FileExistsError, match=r"holds results of another run \(dtype, model.config.json differ\)"):
        RunRecord(path, other).matches()
    assert RunRecord(path, other, free=["model", "dtype"]).matches()

"""Files and folders are written completely or not at all, and runs remember their inputs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vita_hf.files import (
    UNFINISHED,
    RunRecord,
    atomic_directory,
    check_space,
    check_writable,
    hash_content,
    output_name,
    path_below,
    remove_folder,
    remove_leftovers,
    replace_files,
    write_atomically,
)


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


@pytest.mark.parametrize("name", ["clip", "clip 1.final", "Käse-猫", "a" * 200, "..a", ".hidden", "x."])
def test_names_that_are_safe_stay(name):
    safe = name.strip(".")
    assert output_name(name) == name if safe == name else output_name(name).startswith(f"{safe}-")


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "...", " ", "/", "../../etc", "/etc/passwd", "C:\\x", "a\0b", "a\nb", "\x1b[31m"),
        *(
            "nul",
            "COM1.txt",
            "COM¹.txt",
            "conin$",
            "con .txt",
            "a" * 201,
            "猫" * 100,
            "\u202egpj",
            "\udcff",
            "a\x85b",
            "a\u2028b",
            "x. ",
        ),
    ],
)
def test_names_that_are_not_safe_are_changed(name, tmp_path):
    safe = output_name(name)
    assert safe != name and safe == output_name(name)
    assert safe.strip(". ") == safe and safe.isprintable() and len(safe.encode()) <= 200
    (tmp_path / safe).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [safe]
    assert safe.split(".")[0].lower() not in ("nul", "com1", "com¹", "con", "conin$")


def test_different_names_stay_different():
    names = ["a/b", "a\\b", "a:b", "a_b", "a" * 300, "a" * 301, "", ".", "..", "猫" * 80, "猫" * 81]
    assert len({output_name(name) for name in names}) == len(names)


def test_hash_of_paths_and_of_open_files(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_content(tmp_path / "file") == expected
    with open(tmp_path / "file", "rb") as file:
        file.read()
        assert hash_content(file) == expected


def write_files(folder, names, content="new", last="run.json", obsolete=()):
    with replace_files(folder, last, obsolete) as temporary:
        for name in names:
            (temporary / name).write_text(content)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_only_files_of_the_same_names_are_replaced(tmp_path):
    out = tmp_path / "deep" / "out"
    write_files(out, ["a", "b", "run.json"], "old")
    (out / "notes.txt").write_text("mine")
    write_files(out, ["a", "run.json"], obsolete=("a", "b"))
    assert contents(out) == {"a": "new", "run.json": "new", "notes.txt": "mine"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("files", [{}, {"run.json": "old", "a": "old"}])
def test_nothing_changes_if_the_block_fails(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(OSError, match="No space left"), replace_files(tmp_path, "run.json") as temporary:
        (temporary / "a").write_text("new")
        full_disk()
    assert contents(tmp_path) == files


KILLED = """
import os, signal, sys
from pathlib import Path
from vita_hf.files import replace_files

moved, replace = [], Path.replace

def replace_and_die(path, target):
    replace(path, target)
    moved.append(target)
    if len(moved) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

Path.replace = replace_and_die
with replace_files(sys.argv[1], "run.json", ["c"]) as folder:
    for name in ("a", "b", "run.json"):
        (folder / name).write_text("new")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("moves", [1, 2, 3, 4])
def test_killed_while_files_are_replaced(tmp_path, moves):
    """At every time, `run.json` is there only with files of its own run, and otherwise the folder is marked."""
    names = ["a", "b", "c", "run.json"]
    write_files(tmp_path / "out", names, "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out"), str(moves)])
    assert killed.returncode == -9
    left = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.is_file()}
    if "run.json" in left:
        assert (left["a"], left["b"], left["run.json"]) == ("new", "new", "new")
    assert UNFINISHED in left
    write_files(tmp_path / "out", names[:2] + names[3:], "newest", obsolete=["c"])
    remove_leftovers(tmp_path / "out", seconds=-1)
    assert contents(tmp_path / "out") == {"a": "newest", "b": "newest", "run.json": "newest"}


def test_without_the_last_file_the_folder_is_marked(tmp_path):
    write_files(tmp_path / "out", ["a"])
    assert contents(tmp_path / "out") == {"a": "new", UNFINISHED: ""}
    write_files(tmp_path / "out", ["run.json"])
    assert contents(tmp_path / "out") == {"a": "new", "run.json": "new"}


def test_two_writers_of_one_new_folder(tmp_path):
    with pytest.raises(FileExistsError, match="out was written by another process meanwhile"):
        with replace_files(tmp_path / "out", "run.json") as temporary:
            (temporary / "run.json").write_text("second")
            write_files(tmp_path / "out", ["run.json"], "first")
    assert contents(tmp_path / "out") == {"run.json": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_killed_processes(tmp_path):
    """Only temporary names count, and only what has not been written to for a while."""
    old, name = time.time() - 7200, f".{'0' * 32}.clip"
    for path in (tmp_path / name / "overlay.mp4", tmp_path / f"{name}.json", tmp_path / ".git" / "config"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (old, old))
        os.utime(path.parent, (old, old))
    (tmp_path / f".{'1' * 32}.clip").mkdir()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{'1' * 32}.clip", ".git"]


def test_a_removed_folder_is_gone_at_once(tmp_path, monkeypatch):
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "weights").touch()
    monkeypatch.setattr("vita_hf.files._remove", interrupt_with)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(tmp_path / "step")
    assert not (tmp_path / "step").exists()
    monkeypatch.undo()
    remove_leftovers(tmp_path, seconds=-1)
    remove_folder(tmp_path / "step")
    assert list(tmp_path.iterdir()) == []


def interrupt_with(_):
    raise KeyboardInterrupt


def test_folders_that_cannot_be_written_to(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_space(tmp_path / "a", 10, "none")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(NotADirectoryError, match=r"^cannot write to the folder .*: Not a directory$"):
            check_writable(folder)
    with pytest.raises(OSError, match="File name too long"):
        check_writable(tmp_path / ("n" * 300))
    with pytest.raises(
        OSError, match=r"^not enough space in .*/a: \d+ MiB are free, about 1\d+ MiB are needed; buy a disk$"
    ):
        check_space(tmp_path / "a", 2**80, "buy a disk")


def test_names_from_elsewhere_stay_below_their_folder(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to("images")
    for name in ("a/b.jpg", "a/../b.jpg", "./b.jpg", "...jpg", "a\\..\\b"):
        for folder in ("images", "link"):
            assert path_below(tmp_path / folder, name) == f"{tmp_path}/{folder}/{name}"
    (tmp_path / "images" / "b").symlink_to("a")
    (tmp_path / "images" / "out").symlink_to(tmp_path)
    (tmp_path / "images" / "dangling").symlink_to("/nowhere")
    assert path_below(tmp_path / "images", "b/c.jpg").endswith("images/b/c.jpg")
    for name in ("../x", "a/../../x", "..", "/etc/passwd", f"{tmp_path}/images/a", "a\0b", "b/../../../x"):
        for follow_links in (False, True):
            with pytest.raises(ValueError, match="expected a name relative to the folder of images, and below it, got"):
                path_below(tmp_path / "images", name, follow_links)
    for name in ("out", "out/x", "dangling", "out/images/a/x/../../../x"):
        with pytest.raises(ValueError, match=r"symbolic link that leads out of .*images; --follow-links accepts it"):
            path_below(tmp_path / "images", name)
        assert path_below(tmp_path / "images", name, follow_links=True) == f"{tmp_path}/images/{name}"


def test_a_record_that_is_none(tmp_path):
    for content in ("", "[]", "{", "{}", '{"runs": 3}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(
            ValueError, match=r"run\.json: expected the record of an earlier run, but it is something else"
        ):
            RunRecord(tmp_path / "run.json", {"model": 1}).changes()


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


def test_a_record_that_is_nested_too_deeply(tmp_path):
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"run.json: expected the record of an earlier run, but it is something else"):
        RunRecord(tmp_path / "run.json", {"a": 1}).changes()


def test_a_link_to_nothing_is_no_folder(tmp_path):
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(FileNotFoundError, match=r"cannot write to the folder .*link: No such file or directory"):
        check_writable(tmp_path / "link")


@pytest.mark.parametrize("name", [".", "./", "a/..", ""])
def test_the_folder_itself_is_no_file_in_it(tmp_path, name):
    with pytest.raises(ValueError, match="expected a name relative to the folder of images, and below it, got "):
        path_below(tmp_path, name)

"""The `vita-hf` command: it imports only what the chosen command needs."""

import errno
import io
import os
import subprocess
import sys

import pytest

import vita_hf
from vita_hf.commands import arguments, main
from vita_hf.commands.errors import describe_error
from vita_hf.inference.loading import SHIPPED_MODEL
from vita_hf.recipes import list_recipes


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main.main(["--help"])
    printed = capsys.readouterr().out
    for name in main.COMMANDS:
        assert f"    {name} " in printed


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_of_every_command(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main.main([command, "--help"])
    assert f"usage: vita-hf {command}" in capsys.readouterr().out


def test_commands_start_without_optional_packages():
    code = """
import importlib, sys
sys.modules |= dict.fromkeys(["accelerate", "datasets", "evaluate", "av", "gradio"])
for command in ("predict", "info", "convert", "demo", "web"):
    importlib.import_module(f"vita_hf.commands.{command}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delitem(sys.modules, "vita_hf.commands.evaluate", raising=False)
    with pytest.raises(SystemExit, match="1"):
        main.main(["evaluate", "--annotations", "split.json"])
    assert capsys.readouterr().err == "error: the package accelerate is missing: pip install accelerate\n"
    assert describe_error(ModuleNotFoundError(name="datasets.features")).endswith("pip install datasets")


@pytest.mark.parametrize("options", [["--help"], ["--version"], *([name, "--help"] for name in main.COMMANDS)])
def test_help_needs_neither_torch_nor_transformers(options):
    command_line = [sys.executable, "-X", "importtime", "-m", "vita_hf", *options]
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "vita_hf.commands.main" in imported
    assert not imported & {"torch", "transformers", "accelerate", "numpy"}
    assert done.stdout.startswith("vita-hf 0." if options == ["--version"] else "usage: vita-hf")


def test_the_help_names_every_recipe():
    assert arguments.RECIPES == list_recipes()


@pytest.mark.parametrize(
    "program, postponed",
    [
        ("/usr/bin/vita-hf", True),
        ("vita-hf.exe", True),
        ("-m", True),
        ("vita-hf.py", False),
        ("-c", False),
        ("", False),
    ],
)
def test_only_the_command_postpones_imports(program, postponed, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program])
    assert vita_hf._runs_a_command() == postponed
    assert vita_hf.__getattr__("VitaConfig") is vita_hf.VitaConfig


def test_interruption_during_imports(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(main.importlib, "import_module", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main.main(["predict", "clip.mp4"])
    assert capsys.readouterr().err == "interrupted\n"


def test_characters_that_the_terminal_has_not(capsys, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(main, "_run", lambda argv: print("Käse \udcff"))
    main.main([])
    stream.flush()
    assert stream.buffer.getvalue() == b"K\\xe4se \\udcff\n"


def test_output_that_nobody_reads_any_more():
    reader, writer = os.pipe()
    os.close(reader)
    command_line = [sys.executable, "-m", "vita_hf", "info", str(SHIPPED_MODEL)]
    done = subprocess.run(command_line, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_system_errors_in_words():
    assert describe_error(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    assert describe_error(OSError(errno.ENOSPC, "No space left on device", "a.mp4")) == "a.mp4: No space left on device"

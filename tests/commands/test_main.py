"""The `vita-hf` command: it imports only what the chosen command needs."""

import subprocess
import sys

import pytest

from vita_hf.commands import main


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
        main.main(["evaluate", "--help"])
    error = "error: vita-hf evaluate needs the package accelerate: pip install vita-hf[eval]\n"
    assert capsys.readouterr().err == error

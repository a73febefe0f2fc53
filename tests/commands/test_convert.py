"""`vita-hf convert` and scripts/convert_checkpoint.py."""

import runpy
import sys
from pathlib import Path

import pytest

from helpers.detectron2 import SWIN
from vita_hf.commands import main as cli

SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_checkpoint.py"


@pytest.fixture(params=["vita-hf convert", "scripts/convert_checkpoint.py"])
def run_script(request, monkeypatch):
    def run(*arguments) -> None:
        if request.param == "vita-hf convert":
            cli.main(["convert", *map(str, arguments)])
        else:
            monkeypatch.setattr(sys, "argv", ["convert_checkpoint.py", *map(str, arguments)])
            runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def test_script(tmp_path, run_script, capsys):
    arguments = [SWIN["weights"], "--config", SWIN["config_file"], "--output", tmp_path / "out"]
    run_script(*arguments)
    assert capsys.readouterr().out == f"Written: {tmp_path / 'out'}\n"
    with pytest.raises(SystemExit) as stop:
        run_script(*arguments)
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"error: output directory is not empty: {tmp_path / 'out'}\n"
    run_script(*arguments, "--overwrite")


def test_script_errors(tmp_path, run_script, capsys):
    for arguments, message in [
        (["gone.pth", "--recipe", "ovis-r50"], "error: no such checkpoint: gone.pth\n"),
        ([SWIN["weights"], "--recipe", "ovis"], "error: recipe: expected one of "),
        ([SWIN["weights"], "--config", "gone.yaml"], "error: no such config file: "),
    ]:
        with pytest.raises(SystemExit) as stop:
            run_script(*arguments, "--output", tmp_path / "out")
        assert stop.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith(message)
        assert error.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        run_script("--help")
    assert stop.value.code == 0
    assert "--recipe ytvis2019-r50 --output vita-r50-ytvis2019" in capsys.readouterr().out

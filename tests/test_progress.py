"""Progress on terminals, in notebooks and in logs."""

import sys

import pytest

from vita_hf import progress
from vita_hf.progress import progress_bar


def run(shown):
    bar = progress_bar(range(3), description="clip.mp4: detecting", total=3, unit="frame", shown=shown)
    assert list(bar) == [0, 1, 2]


@pytest.mark.parametrize("where", ["terminal", "notebook"])
def test_a_bar_on_terminals_and_in_notebooks(where, monkeypatch, capsys):
    if where == "terminal":
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    else:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    for shown in (None, True):
        run(shown)
        printed = capsys.readouterr().err
        assert "\rclip.mp4: detecting: 100%|" in printed and "3/3" in printed
    run(False)
    assert capsys.readouterr().err == ""


def test_an_occasional_line_in_logs(monkeypatch, capsys):
    run(True)
    assert capsys.readouterr().err == ""  # it took less than a minute
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    run(True)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("clip.mp4: detecting: 0 of 3 [") and last.startswith("clip.mp4: detecting: 3 of 3 [")
    for shown in (None, False):
        run(shown)
        assert capsys.readouterr().err == ""

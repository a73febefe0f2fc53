"""The driver finds every kind of fault, and every target accepts or refuses its first inputs."""

import importlib
import os
import signal
import time
from types import SimpleNamespace

import pytest

from fuzz import driver


def make_target(faults: dict):
    """Make a target that calls functions for some of its inputs; the input of seed n is the byte n."""

    def check(path):
        faults.get(path.read_bytes()[0], lambda path: None)(path)

    return SimpleNamespace(check=check)


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch):
    monkeypatch.setattr(driver, "CPU_SECONDS", 0.3)
    monkeypatch.setattr(driver, "WALL_SECONDS", 2.0)
    monkeypatch.setattr(driver, "make_input", lambda target, seed: bytes([seed]))


def refuse(path):
    raise ValueError(f"{path}: expected something else")


def spin(path):
    while True:
        pass


def take_memory(path):
    bytearray(3 << 30)


def test_faults():
    faults = {
        1: refuse,
        2: lambda path: {}["missing"],
        3: lambda path: os.kill(os.getpid(), signal.SIGSEGV),
        5: spin,
        6: take_memory,
        7: lambda path: int("no number"),
        8: lambda path: time.sleep(100),
    }
    report = driver.fuzz(make_target(faults), range(11), jobs=2)
    assert report.counts == {"accepted": 4, "refused": 1}
    found = {fault.seed: fault.summary for fault in report.faults}
    assert found.keys() == {2, 3, 5, 6, 7, 8}
    assert found[2].startswith("KeyError at test_driver.py:")
    assert (
        found[3] == "crash: SIGSEGV" and found[5] == "more than 0.3 s of CPU time" and found[8] == "no end within 2 s"
    )
    assert found[6].startswith("MemoryError at test_driver.py:")
    assert "does not name the file: ValueError: invalid literal" in found[7]
    (segfault,) = (fault for fault in report.faults if fault.seed == 3)
    assert "Segmentation fault" in segfault.details and "in check" in segfault.details


def test_faults_are_saved(tmp_path, capsys):
    target = make_target({1: refuse, 2: spin, 3: spin})
    driver.save_faults("letters", target, driver.fuzz(target, range(4)).faults, tmp_path / "faults")
    assert (tmp_path / "faults" / "letters-2").read_bytes() == bytes([2])
    assert "in spin" in (tmp_path / "faults" / "letters-2.log").read_text()
    assert "FAULT letters, seed 2 (2 such inputs): more than 0.3 s of CPU time" in capsys.readouterr().out


@pytest.mark.parametrize("name", driver.list_targets())
def test_targets(name, tmp_path, monkeypatch):
    monkeypatch.undo()
    target = importlib.import_module(f"fuzz.target_{name}")
    outcomes = []
    for seed in range(20):
        content = driver.make_input(target, seed)
        assert content == driver.make_input(target, seed)
        outcome, details = driver.run_input(target, content, tmp_path)
        assert outcome in (driver.ACCEPTED, driver.REFUSED), details
        outcomes.append(outcome)
    assert driver.ACCEPTED in outcomes  # else the mutations leave nothing to read

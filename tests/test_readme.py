"""The README says what is so."""

import re
from pathlib import Path

import pytest
import yaml

from helpers.videos import HEIGHT, WIDTH, make_frames, write_video
from vita_hf import VideoInstances

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_each_step_by_hand(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("av")
    write_video(tmp_path / "clip.mp4", make_frames())
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", README, re.S)
    names = {}
    exec(compile(code.replace("vita-r50-ytvis2019", str(tiny_model)), "README", "exec"), names)
    tracks = names["tracks"]
    assert isinstance(tracks, VideoInstances) and len(tracks) > 0
    assert tracks.masks.shape == (len(tracks), len(make_frames()), HEIGHT, WIDTH)
    assert set(tracks.label_names) <= {"cat", "dog", "fox", "hen", "owl"}


def test_the_source_distribution_holds_what_the_readme_links_to():
    (include,) = re.findall(r"^include = (\[.*\])$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    linked = {link.split("/")[0] for link in re.findall(r"\]\(([^):#]+)\)", README)}
    assert {"docs", "src", "benchmarks", "NOTICE"} <= linked
    assert linked - {"pyproject.toml"} <= set(yaml.safe_load(include))  # hatch adds pyproject.toml itself

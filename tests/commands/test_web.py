"""`vita-hf web` without gradio: the code behind the page, and the error if gradio is missing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vita_hf.commands import main, web
from vita_hf.tracks.instances import VideoInstances
from vita_hf.video.reader import VideoReader


def a_result(num_frames, **fields):
    masks = torch.zeros(2, num_frames, 48, 64, dtype=torch.bool)
    masks[0, :, 10:20, 10:20] = masks[1, 1:, 30:40, 30:50] = True
    return VideoInstances(
        scores=torch.tensor([0.875, 0.5]),
        labels=torch.tensor([1, 0]),
        masks=masks,
        query_indices=torch.tensor([4, 2]),
        size=(48, 64),
        num_frames=num_frames,
        id2label={0: "dog", 1: "cat"},
        **fields,
    )


@pytest.fixture
def video(tmp_path):
    frames = np.full((6, 48, 64, 3), 120, dtype=np.uint8)
    return a_result(6)[[]].render(frames, tmp_path / "my clip.mp4", fps=12)


def test_segment_writes_what_the_page_shows(video, tmp_path):
    calls = []

    def segmenter(video, **options):
        calls.append((video, options))
        return a_result(3, frame_indices=[0, 2, 4], fps=12.0)

    (tmp_path / "out").mkdir()
    rows, overlay, sheet, json = web.segment(segmenter, video, tmp_path / "out", threshold=0.4, stride=2)
    assert calls == [(video, {"threshold": 0.4, "stride": 2, "progress": True})]
    assert rows == [[0, "cat", 0.875, 0, 4, 3], [1, "dog", 0.5, 2, 4, 2]]
    assert len(rows[0]) == len(web._COLUMNS)
    reader = VideoReader(overlay)
    assert (reader.count_frames(), reader.fps) == (3, 6)
    assert VideoInstances.from_json(json).summary() == a_result(3, frame_indices=[0, 2, 4]).summary()
    with Image.open(sheet) as image:
        assert image.width == 1280
    names = ["my clip-contact-sheet.png", "my clip-overlay.mp4", "my clip.json"]
    assert sorted(path.name for path in Path(json).parent.iterdir()) == names
    # A second run on a video of the same name has a folder of its own.
    *_, again = web.segment(segmenter, video, tmp_path / "out")
    assert Path(again).parent != Path(json).parent


def test_without_gradio(tiny_model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit, match="1"):
        main.main(["web", "--model", str(tiny_model)])
    assert capsys.readouterr().err == "error: vita-hf web needs the gradio package: pip install gradio\n"


def test_device_and_dtype_reach_the_model(tiny_model, monkeypatch):
    models = []

    def build_page(segmenter, folder):
        models.append(segmenter.model)
        raise OSError("no port is free")

    monkeypatch.setattr(web, "build_page", build_page)
    for arguments in ([], ["--device", "meta", "--dtype", "bfloat16"]):
        with pytest.raises(SystemExit):
            main.main(["web", "--model", str(tiny_model), *arguments])
    assert models[0].dtype == torch.float32
    assert (models[1].device.type, models[1].dtype) == ("meta", torch.bfloat16)

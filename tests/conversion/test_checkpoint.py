"""Original checkpoints → directories for `from_pretrained`."""

import json

import pytest
import torch
from transformers import AutoModelForUniversalSegmentation, AutoVideoProcessor

import vita_hf
from helpers.detectron2 import SWIN
from helpers.golden import GOLDEN
from vita_hf.conversion import convert_checkpoint, load_original_checkpoint


@pytest.mark.parametrize("variant", ["r50", "swin"])
def test_directory_loads_as_the_same_model(tmp_path, variant):
    folder = GOLDEN / variant
    (tmp_path / "out").mkdir()  # an empty directory is no obstacle
    output = convert_checkpoint(folder / "model.pth", tmp_path / "out", folder / "config.yaml")
    assert output == (tmp_path / "out").resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in output.iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "video_preprocessor_config.json"),
    }
    config = json.loads((output / "config.json").read_text())
    assert (config["model_type"], config["dtype"], config["id2label"]["6"]) == ("vita", "float32", "LABEL_6")
    assert str(tmp_path) not in (output / "config.json").read_text()

    model, report = AutoModelForUniversalSegmentation.from_pretrained(output, output_loading_info=True)
    assert not any(report.values())
    expected = load_original_checkpoint(folder / "model.pth", folder / "config.yaml").state_dict()
    loaded = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    processor = AutoVideoProcessor.from_pretrained(output)
    assert type(processor) is vita_hf.VitaVideoProcessor
    assert processor.size["shortest_edge"] == (448 if variant == "swin" else 360)


def test_directory_is_not_overwritten_unasked(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    for overwrite, message in ((False, "output directory is not empty: "), (True, "because it holds no model")):
        with pytest.raises(FileExistsError, match=message):
            convert_checkpoint(**SWIN, output_dir=output, overwrite=overwrite)
    (output / "config.json").write_text("{}")
    convert_checkpoint(**SWIN, output_dir=output, overwrite=True)
    assert (output / "notes.txt").read_text() == "mine"  # only the model's own files are replaced
    assert (output / "model.safetensors").exists()


@pytest.mark.parametrize("existing", [False, True])
def test_failures_leave_nothing_half_written(tmp_path, monkeypatch, existing):
    output = tmp_path / "out"
    if existing:
        output.mkdir()
        (output / "config.json").write_text("{}")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("vita_hf.conversion.checkpoint.model_card", fail)
    with pytest.raises(OSError, match=r"disk full"):
        convert_checkpoint(**SWIN, output_dir=output, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if existing else [])
    if existing:
        assert [path.name for path in output.iterdir()] == ["config.json"]

from types import SimpleNamespace

import pytest
from transformers import TimmBackboneConfig

from vita_hf.training.saving import base_model, learning_curve, push_to_hub


def test_base_model_of_the_card(tmp_path):
    timm = SimpleNamespace(backbone_config=TimmBackboneConfig(backbone="resnet50"))
    assert base_model("scratch", timm) is None
    assert base_model("backbone", timm) == "timm/resnet50.tv_in1k"
    assert base_model("facebook/some-model", timm) == "facebook/some-model"
    assert base_model(f"{tmp_path}/", timm) == tmp_path.name


def test_learning_curve():
    scores = {"AP": 0.123456, "AP50": 0.5, "AP75": 0.25, "AR1": 1.0}
    entries = [{"step": 1, "loss": 3.0}, {"step": 1, "evaluation": scores}, {"step": 2, "loss": 2.5}]
    assert learning_curve(entries) == [{"step": 1, "loss": 3.0, "AP": 0.1235, "AP50": 0.5, "AP75": 0.25}]


def test_only_finished_models_are_uploaded_and_nothing_else(tmp_path, monkeypatch):
    uploads = []
    api = SimpleNamespace(upload_folder=lambda **options: uploads.append(options))
    monkeypatch.setattr("vita_hf.training.saving.HfApi", lambda: api)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="holds no finished model"):
        push_to_hub(tmp_path, ["config.json", "model.safetensors"], "me/mine")
    (tmp_path / "config.json").touch()
    push_to_hub(tmp_path, ["config.json", "model.safetensors"], "me/mine")
    (tmp_path / ".unfinished").touch()
    with pytest.raises(ValueError, match="holds no finished model"):
        push_to_hub(tmp_path, ["config.json", "model.safetensors"], "me/mine")
    patterns = ["config.json", "model.safetensors"]
    assert uploads == [{"repo_id": "me/mine", "folder_path": tmp_path, "allow_patterns": patterns}]

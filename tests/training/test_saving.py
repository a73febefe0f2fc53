from types import SimpleNamespace

from transformers import TimmBackboneConfig

from vita_hf.training.saving import base_model, learning_curve


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

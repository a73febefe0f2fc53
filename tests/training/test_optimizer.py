import pytest

from helpers.tiny_vita import tiny
from vita_hf.recipes import TrainingSettings
from vita_hf.training.optimizer import make_optimizer, parameter_groups, set_learning_rate

SETTINGS = TrainingSettings(steps=10, batch_size=1, learning_rate=1e-3, learning_rate_steps=(4, 8), warmup_steps=0)


def test_parameter_groups():
    model = tiny()
    groups = {
        ("encoder." in group["names"][0] and "pixel_level_module" in group["names"][0], group["weight_decay"]): group
        for group in parameter_groups(model, SETTINGS)
    }
    assert set(groups) == {(True, 0.05), (True, 0.0), (False, 0.05), (False, 0.0)}
    for (backbone, _), group in groups.items():
        assert group["lr"] == group["base_lr"] == pytest.approx(1e-4 if backbone else 1e-3)
        assert all(("pixel_level_module.encoder." in name) == backbone for name in group["names"])
    undecayed = groups[True, 0.0]["names"] + groups[False, 0.0]["names"]
    decayed = groups[True, 0.05]["names"] + groups[False, 0.05]["names"]
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(undecayed) + len(decayed) == len(trainable) and {*undecayed, *decayed} == trainable
    for name in undecayed:
        is_norm = "norm" in name or ".input_projections." in name or "adapter_1.1." in name or "layer_1.1." in name
        is_embedding = name.endswith(("queries_embedder.weight", "queries_features.weight", "level_embed.weight"))
        assert is_norm or is_embedding or "relative_position_bias_table" in name, name
    for name in ("decoder.level_embed", "class_predictor.bias", "in_proj_bias", "fc1.bias", "q_proj.bias"):
        assert any(parameter.endswith(name) for parameter in decayed), name
    assert any("relative_position_bias_table" in name for name in groups[True, 0.0]["names"])


def test_learning_rate_of_every_group():
    optimizer = make_optimizer(tiny(), SETTINGS)
    rates = []
    for step in range(10):
        assert set_learning_rate(optimizer, SETTINGS, step) == pytest.approx(
            max(g["lr"] for g in optimizer.param_groups)
        )
        rates.append([round(group["lr"] / group["base_lr"], 9) for group in optimizer.param_groups])
    assert rates == [[1.0] * 4] * 4 + [[0.1] * 4] * 4 + [[0.01] * 4] * 2

"""Swin's drop path, on the attention and on the MLP branch."""

import copy
import pickle

import pytest
import torch
from transformers import SwinBackbone
from transformers.models.swin.modeling_swin import SwinLayer

from helpers.models import BACKBONES, tiny_config
from vita_hf import VitaForVideoInstanceSegmentation
from vita_hf.backbones import drop_both_branches

RATE = 0.6  # of the last layer; the rates rise linearly from 0


def swin_config():
    config = BACKBONES["swin"]()
    config.drop_path_rate = RATE
    return config


@pytest.fixture
def backbone() -> SwinBackbone:
    backbone = SwinBackbone(swin_config()).train()
    drop_both_branches(backbone)
    return backbone


def layers(backbone) -> list[SwinLayer]:
    return [module for module in backbone.modules() if isinstance(module, SwinLayer)]


def seeded(layer: SwinLayer, inputs: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(4)
    return layer(inputs, (4, 4), True)[0]


def by_formula(layer: SwinLayer, inputs: torch.Tensor, rate: float) -> torch.Tensor:
    """Compute both branches, then drop samples by hand and divide the kept ones by the keep probability."""
    torch.manual_seed(4)
    attention, mlp = ((torch.rand(len(inputs), 1, 1) >= rate) / (1 - rate) for _ in range(2))
    whole = copy.deepcopy(layer).eval()
    after_attention = []
    whole.layernorm_after.register_forward_pre_hook(lambda module, args: after_attention.append(args[0]))
    whole(inputs, (4, 4), True)
    hidden = inputs + attention * (after_attention[0] - inputs)
    norm = whole.layernorm_after
    normal = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:], norm.weight, norm.bias, norm.eps)
    update = whole.mlp.fc2(whole.mlp.activation_fn(whole.mlp.fc1(normal)))
    return hidden + mlp * update


def test_both_branches_are_dropped(backbone):
    layer, inputs = layers(backbone)[-1], torch.randn(64, 16, 64)
    output = seeded(layer, inputs)
    torch.testing.assert_close(output, by_formula(layer, inputs, RATE))
    untouched = (output == inputs).flatten(1).all(1).float().mean().item()
    assert untouched == pytest.approx(RATE**2, abs=0.15)  # both dropped


def test_rates_rise_from_layer_to_layer(backbone):
    channels = (8, 16, 32, 32, 64)
    for index, (layer, width) in enumerate(zip(layers(backbone), channels, strict=True)):
        inputs = torch.randn(16, 16, width)
        if index == 0:
            torch.testing.assert_close(seeded(layer, inputs), layer.eval()(inputs, (4, 4), True)[0])
        else:
            torch.testing.assert_close(seeded(layer, inputs), by_formula(layer, inputs, RATE * index / 4))


def test_nothing_is_dropped_in_evaluation(backbone):
    frames = torch.randn(2, 3, 64, 64)
    plain = SwinBackbone(swin_config())
    plain.load_state_dict(backbone.state_dict())  # the keys are the same
    with torch.no_grad():
        maps, expected = backbone.eval()(frames).feature_maps, plain.eval()(frames).feature_maps
    assert all(torch.equal(a, b) for a, b in zip(maps, expected))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_drop_by_themselves(again):
    layer = SwinLayer(swin_config(), 64, (4, 4), 4, drop_path_rate=RATE)
    drop_both_branches(layer)
    copied = again(layer).train()
    layer.eval()  # would switch dropping off if the copy still asked the original
    inputs = torch.randn(64, 16, 64)
    torch.testing.assert_close(seeded(copied, inputs), by_formula(copied, inputs, RATE))


def test_model_drops_both_after_loading(tmp_path):
    config = tiny_config()
    config.backbone_config.drop_path_rate = RATE
    VitaForVideoInstanceSegmentation(config).save_pretrained(tmp_path)
    model, report = VitaForVideoInstanceSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    layer, inputs = layers(model.train())[-1], torch.randn(64, 16, 64)
    torch.testing.assert_close(seeded(layer, inputs), by_formula(layer, inputs, RATE))


def test_layers_that_drop_both_branches_themselves_do_not_drop_twice():
    """A transformers version that drops the MLP branch, too, changes nothing."""

    class TwiceDroppingLayer(SwinLayer):
        def forward(self, hidden_states, *args, **kwargs):
            attention, _ = self.attention(self.layernorm_before(hidden_states))  # (4, 4) is a single window
            hidden_states = hidden_states + self.drop_path(attention)
            return (hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states))),)

    layer = TwiceDroppingLayer(swin_config(), 64, (4, 4), 4, drop_path_rate=RATE).train()
    drop_both_branches(layer)
    inputs = torch.randn(64, 16, 64)
    torch.testing.assert_close(seeded(layer, inputs), by_formula(layer, inputs, RATE))


def test_windows_of_a_sample_are_dropped_together():
    layer = SwinLayer(swin_config(), 64, (8, 8), 4, drop_path_rate=RATE, shift_size=2).train()
    drop_both_branches(layer)
    torch.nn.init.zeros_(layer.mlp.fc2.weight)
    torch.nn.init.zeros_(layer.mlp.fc2.bias)
    inputs = torch.randn(32, 64, 64)  # four windows each
    torch.manual_seed(4)
    kept = torch.rand(32, 1, 1) >= RATE
    torch.manual_seed(4)
    update = layer(inputs, (8, 8), True)[0] - inputs
    assert torch.equal(update.flatten(1).any(1), kept[:, 0, 0])
    whole = layer.eval()(inputs, (8, 8), True)[0] - inputs
    torch.testing.assert_close(update, whole * kept / (1 - RATE))

"""Losses, matches and gradients against the reference's, with its points and with its own random draws."""

import pytest
import torch

from helpers.golden import load_golden
from vita_hf import loss_vita
from vita_hf.conversion import convert_state_dict


@pytest.fixture(autouse=True)
def _without_mkldnn():
    """
    Sum convolutions in the reference's order. In one variant a ReLU's input is 1.5e-7 with it, and 0 in exact
    arithmetic, which changes a gradient by 0.2 %. oneDNN's order depends on the number of threads and its version.
    """
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def training_batch(golden, case: str):
    """Clips of different sizes padded together, and labels: a mask where the reference has an id."""
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    videos = [
        {
            key: golden.tensors[f"train_{case}.video{v}.{key}"]
            for key in ("pixel_values", "gt_classes", "gt_ids", "gt_masks")
        }
        for v in range(2)
    ]
    size = [max(v["pixel_values"].shape[axis] for v in videos) for axis in (-2, -1)]
    size = [-(-side // 32) * 32 for side in size]
    pixels, masks, classes = [], [], []
    for video in videos:
        pad = (0, size[1] - video["pixel_values"].shape[-1], 0, size[0] - video["pixel_values"].shape[-2])
        pixels.append(torch.nn.functional.pad((video["pixel_values"].float() - mean) / std, pad))
        inside = torch.nn.functional.pad(video["gt_masks"].bool(), pad)
        inside &= (video["gt_ids"] != -1)[..., None, None]
        masks.append(inside.transpose(0, 1))
        # an instance's class: that of the first frame which has one
        labels = video["gt_classes"].amax(0)
        classes.append(labels.clamp(min=0))
    return torch.stack(pixels), masks, classes


def run(golden, case: str):
    model = golden.model().train()
    pixels, masks, classes = training_batch(golden, case)
    model.zero_grad()
    out = model(pixels, mask_labels=masks, class_labels=classes)
    out.loss.backward()
    return model, out


def new_names(golden, model) -> dict[str, list[str]]:
    """Original parameter name → names here, by converting tensors that hold their own number."""
    facts = golden.json["state_dict"]
    numbered = {name: torch.full(shape, float(i)) for i, (name, (_, shape)) in enumerate(facts.items())}
    converted, _ = convert_state_dict(numbered, model.state_dict())
    names = {name: [] for name in facts}
    for new, tensor in converted.items():
        names[list(facts)[int(tensor.flatten()[0])]].append(new)
    return names


def check_against(golden, model, out, facts):
    assert set(out.loss_dict) == set(facts["losses"])
    for name, theirs in facts["losses"].items():
        assert out.loss_dict[name].item() == pytest.approx(theirs, rel=1e-4), name
    assert out.loss.item() == pytest.approx(facts["total"], rel=1e-4)
    assert out.loss.item() == pytest.approx(sum(term.item() for term in out.loss_dict.values()), rel=1e-5)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    renamed = new_names(golden, model)
    seen = set()
    for original, theirs in facts["grad"].items():
        names = renamed[original]
        parts = [gradients[name] for name in names]
        seen.update(names)
        norm = torch.cat([part.double().flatten() for part in parts]).norm().item()
        # parameters whose gradient vanishes in exact arithmetic (key biases and the like) are rounding noise
        noise = 1e-6 * facts["global_grad_norm"]
        assert norm == pytest.approx(theirs["norm"], rel=1e-3, abs=noise), original
    assert seen == {name for name, grad in gradients.items() if grad is not None}


@pytest.mark.parametrize("case", ["main", "empty1"])
def test_losses_matches_and_gradients(golden, case, monkeypatch):
    points = golden.tensors["train.fixed_points"]
    monkeypatch.setattr(loss_vita, "sample_matching_points", lambda items, *_: points[None].expand(items, -1, -1))
    monkeypatch.setattr(
        loss_vita, "sample_uncertain_points", lambda logits, *_: points[None].expand(logits.shape[0], -1, -1)
    )
    pairs = []  # of every prediction: [queries, targets] of each item
    match = loss_vita.SetCriterion.match

    def remember(self, *args):
        matches, masks = match(self, *args)
        offsets = torch.tensor(self.targets.offsets())[matches.items % len(self.targets)]
        columns = zip(*(rows.split(matches.counts) for rows in (matches.queries, matches.targets - offsets)))
        pairs.append([[queries.tolist(), targets.tolist()] for queries, targets in columns])
        return matches, masks

    monkeypatch.setattr(loss_vita.SetCriterion, "match", remember)
    model, out = run(golden, case)
    facts = golden.json[f"train_{case}_fixed"]
    check_against(golden, model, out, facts)

    order = ["last", *(f"aux_{i}" for i in range(model.config.decoder_layers - 1))]
    video_order = ["last", *(f"aux_{i}" for i in range(model.config.object_decoder_layers - 1))]
    expected = [facts["matcher_frame"][k] for k in order] + [facts["matcher_clip"][k] for k in video_order]
    assert len(pairs) == len(expected)
    for ours, theirs in zip(pairs, expected):
        assert ours == theirs


def test_random_draws_in_the_references_order(monkeypatch):
    """With the reference's own random numbers in its own order, everything still agrees."""
    golden = load_golden("r50")
    facts = golden.json["train_main_random"]
    draws = iter(golden.tensors[f"train_main_random.draw_{i:03d}"] for i in range(len(facts["draws"])))

    matching = (len(golden.tensors["train.fixed_points"]), 2)

    def rand(*shape, device=None, dtype=None):
        # The reference draws each item's matching points by themselves.
        values = [next(draws)]
        while values[0].shape == (1, *matching) and len(values) < shape[0]:
            values.append(next(draws))
        assert tuple(torch.cat(values).shape) == tuple(shape)
        return torch.cat(values)

    monkeypatch.setattr(loss_vita.torch, "rand", rand)
    model, out = run(golden, "main")
    monkeypatch.undo()
    assert next(draws, None) is None
    check_against(golden, model, out, facts)

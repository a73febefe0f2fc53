import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from helpers.backends import needs_gpu
from helpers.models import labels, tiny_model
from vita_hf import loss_points, loss_vita
from vita_hf.loss_matching import Matches, assign, matching_costs, sum_masks_at_points
from vita_hf.loss_targets import Targets, find_instance_presence
from vita_hf.loss_vita import count_loss_normalizers, sample_uncertain_points


def fixed_points(monkeypatch):
    """Compare every mask at the same points, whatever the batch or the process."""
    points = torch.rand(1, 64, 2, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(loss_vita, "sample_matching_points", lambda items, count, device: points.expand(items, -1, -1))
    monkeypatch.setattr(loss_vita, "sample_uncertain_points", lambda logits, *_: points.expand(logits.shape[0], -1, -1))


# -- Odd targets -------------------------------------------------------------------------------------------------------


def odd_targets(kind: str):
    masks = torch.zeros(3, 2, 64, 64, dtype=torch.bool)
    if kind == "no instances":
        return [masks[:0]], [torch.zeros(0, dtype=torch.int64)]
    if kind == "only empty masks":
        return [masks], [torch.tensor([0, 1, 2])]
    masks[:, 0, 10:40, 10:40] = True  # absent from the second frame
    if kind == "absent in a frame":
        return [masks], [torch.tensor([0, 1, 2])]
    many = torch.rand(15, 2, 64, 64) > 0.8  # more than video queries (10) and than frame queries (12)
    return [many], [torch.arange(15) % 7]


@pytest.mark.parametrize("kind", ["no instances", "only empty masks", "absent in a frame", "more than queries"])
def test_odd_targets_train_to_finite_values(kind):
    model = tiny_model().train()
    masks, classes = odd_targets(kind)
    out = model(torch.randn(1, 2, 3, 64, 64), mask_labels=masks, class_labels=classes)
    out.loss.backward()
    assert all(term.isfinite() for term in out.loss_dict.values())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if kind in ("no instances", "only empty masks"):
        for name, term in out.loss_dict.items():
            assert (term > 0) == ("_ce" in name), name


def test_absent_instance_equals_instance_not_given(monkeypatch):
    fixed_points(monkeypatch)
    model, video = tiny_model().train(), torch.randn(1, 2, 3, 64, 64)
    targets = labels(1, 2, 64, 64)
    padded = {
        "mask_labels": [torch.cat((targets["mask_labels"][0], torch.zeros(1, 2, 64, 64, dtype=torch.bool)))],
        "class_labels": [torch.cat((targets["class_labels"][0], torch.tensor([4])))],
    }
    a, b = model(video, **targets).loss_dict, model(video, **padded).loss_dict
    for name in a:
        torch.testing.assert_close(a[name], b[name], msg=name)


def test_costs_that_are_not_finite_are_an_error():
    model = tiny_model().train()
    with torch.no_grad():
        model.video_class_predictor.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"video part, item 0: the matching cost of 10 queries and 3 instances is not"):
        model(torch.randn(1, 2, 3, 64, 64), **labels(1, 2, 64, 64))
    with torch.no_grad():
        model.video_class_predictor.bias[0] = 0
        model.class_predictor.bias[0] = float("nan")
    with pytest.raises(ValueError, match="detector, item 0"):
        model(torch.randn(1, 2, 3, 64, 64), **labels(1, 2, 64, 64))


@pytest.mark.parametrize("elements", [1, 2**20])
def test_the_item_whose_costs_are_not_finite_is_named(elements, monkeypatch):
    monkeypatch.setattr(loss_points, "chunk_elements", lambda device: elements)  # one by one, or together
    video = torch.randn(1, 3, 3, 64, 64)
    video[0, 2] = float("nan")
    with pytest.raises(ValueError, match="detector, item 2: the matching cost"):
        tiny_model()(video, **labels(1, 3, 64, 64))


def test_losses_do_not_depend_on_the_default_dtype(monkeypatch):
    points = torch.rand(1, 64, 2)
    monkeypatch.setattr(loss_vita, "sample_uncertain_points", lambda logits, *_: points.expand(logits.shape[0], -1, -1))
    model, video, given = tiny_model().train(), torch.randn(1, 2, 3, 64, 64), labels(1, 2, 64, 64)
    losses = []
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            torch.manual_seed(4)  # the matching's points
            losses.append(model(video, **given).loss)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(*losses)


# -- Formulas ----------------------------------------------------------------------------------------------------------


def test_matching_costs_by_definition():
    """At one point per pixel center, sampling is reading, and every term can be written out."""
    model = tiny_model()
    config = model.config
    height, width, frames = 4, 6, 2
    grid = torch.stack(
        torch.meshgrid((torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height, indexing="xy"), -1
    ).view(1, -1, 2)
    class_logits, mask_logits = torch.randn(2, 5, 8), torch.randn(2, frames, 5, height, width) * 3
    masks, labels = torch.rand(5, frames, height, width) > 0.5, torch.tensor([2, 6, 0, 3, 1])
    targets = Targets(labels, masks, torch.tensor([0, 1, 0, 1, 2]), [2, 3])
    sums = sum_masks_at_points(mask_logits.flatten(3).mT, (height, width), grid.expand(2, -1, -1), targets)
    costs = matching_costs(config, class_logits, sums, frames * height * width, targets)
    for item, cost in enumerate(costs):
        target = targets[item : item + 1]
        assert cost.shape == (5, (2, 3)[item])
        for q in range(5):
            for n in range(cost.shape[1]):
                x = mask_logits[item, :, q].double().flatten()
                y = target.masks[n].double().flatten()
                p = x.sigmoid()
                bce = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
                dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
                classes = -class_logits[item, q].double().softmax(0)[target.labels[n]]
                assert cost[q, n].item() == pytest.approx((2 * classes + 5 * bce + 5 * dice).item(), rel=1e-4)


@pytest.mark.parametrize("elements", [1, 20_000])
def test_items_matched_together_or_apart_are_the_same(elements, monkeypatch):
    """How many items fit into a chunk changes no cost; they differ in their targets and in their points."""
    model, video = tiny_model().train(), torch.randn(2, 2, 3, 64, 64)
    given = labels(1, 2, 64, 64), labels(1, 2, 64, 64, instances=1)
    given = {key: given[0][key] + given[1][key] for key in given[0]}
    costs: list[list[torch.Tensor]] = []
    monkeypatch.setattr(loss_vita, "assign", lambda items, *args: costs.append(items) or assign(items, *args))

    def run(elements: int):
        monkeypatch.setattr(loss_points, "chunk_elements", lambda device: elements)
        torch.manual_seed(2)
        costs.clear()
        return model(video, **given).loss, [item for items in costs for item in items]

    (loss, together), (again, apart) = run(2**22), run(elements)
    torch.testing.assert_close(loss, again)
    assert len(together) == len(apart) == 4 * 4 + 3 * 6
    for a, b in zip(together, apart):
        torch.testing.assert_close(a, b)


def test_assign_is_optimal_for_any_shape():
    for queries, instances in ((5, 3), (3, 5), (4, 0), (1, 1)):
        cost = np.random.default_rng(queries).normal(size=(queries, instances))
        ((rows, columns),) = assign([cost], "test")
        expected = linear_sum_assignment(cost)
        assert np.array_equal(rows, expected[0]) and np.array_equal(columns, expected[1])


def test_uncertain_points_are_the_least_certain_of_those_drawn(monkeypatch):
    logits = torch.randn(3, 1, 8, 8)
    drawn = [torch.rand(3, 30, 2), torch.rand(3, 3, 2)]
    queue = iter(drawn)
    monkeypatch.setattr(loss_vita.torch, "rand", lambda *shape, device, dtype: next(queue))
    points = sample_uncertain_points(logits, num_points=10, oversample_ratio=3.0, importance_sample_ratio=0.75)
    assert points.shape == (3, 10, 2)
    assert torch.equal(points[:, 7:], drawn[1])
    values = torch.nn.functional.grid_sample(logits, 2 * drawn[0][:, :, None] - 1, align_corners=False)[:, 0, :, 0]
    for mask in range(3):
        least = values[mask].abs().argsort()[:7]
        assert {tuple(p) for p in points[mask, :7].tolist()} == {tuple(p) for p in drawn[0][mask, least].tolist()}


@pytest.mark.parametrize("elements", [1, 2**20])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_matching_gives_the_masks_of_the_matched_queries(device, elements, monkeypatch):
    monkeypatch.setattr(loss_points, "chunk_elements", lambda device: elements)
    groups, frames, queries, channels, height, width = 2, 3, 6, 5, 8, 12
    config = tiny_model().config
    features = torch.randn(groups, frames, channels, height, width, device=device)
    masks = torch.rand(5, frames, height, width, device=device) > 0.5
    label, ids = torch.tensor([[2, 6, 0, 3, 1], [0, 1, 0, 1, 2]], device=device)
    targets = Targets(label, masks, ids, [2, 3])
    one = torch.ones((), device=device)
    criterion = loss_vita.SetCriterion(config, features, targets, 0.1, one, one, "test")
    embeddings = torch.randn(2 * groups, queries, channels, device=device)  # of two layers
    matches, matched_masks = criterion.match(torch.randn(2 * groups, queries, 8, device=device), embeddings)
    expected = [
        torch.einsum("c,tchw->thw", embeddings[item, query], features[item % groups])
        for item, query in zip(matches.items.tolist(), matches.queries.tolist())
    ]
    assert matches.counts == [2, 3, 2, 3]
    assert sorted(matches.targets[:2].tolist()) == [0, 1] and sorted(matches.targets[-3:].tolist()) == [2, 3, 4]
    torch.testing.assert_close(matched_masks, torch.stack(expected))


def test_similarity_by_definition():
    frames, videos = torch.randn(1, 1, 2, 3, 4), torch.randn(1, 1, 3, 4)
    ids, clip_ids = torch.tensor([0, 1, 1]), torch.tensor([0, 1])
    frame_targets = Targets(ids, torch.empty(0), ids, [2, 1])
    clip = Targets(clip_ids, torch.empty(0), clip_ids, [2])
    frame_pairs = [(np.array([0, 2]), np.array([1, 0])), (np.array([1]), np.array([0]))]
    frame_matches = Matches.from_pairs(frame_pairs, frame_targets)
    video_matches = Matches.from_pairs([(np.array([0, 1]), np.array([0, 1]))], clip)
    loss = loss_vita.similarity_loss(frames, videos, [frame_matches], video_matches, clip, frame_targets)
    rows = [
        (videos[0, 0, 0], 0),
        (videos[0, 0, 1], 1),
        (frames[0, 0, 0, 0], 1),
        (frames[0, 0, 0, 2], 0),
        (frames[0, 0, 1, 1], 1),
    ]
    expected = 0.0
    for a, i in rows:
        for b, j in rows:
            p = (a @ b).double().sigmoid()
            expected -= (p.log() if i == j else (1 - p).log()).item()
    assert loss.item() == pytest.approx(expected, rel=1e-4)


# -- Memory ------------------------------------------------------------------------------------------------------------


def test_no_mask_of_an_unmatched_query_carries_a_gradient():
    """Nothing that autograd keeps is as large as all queries' masks over the clip."""
    model = tiny_model(num_video_queries=50, num_queries=50).train()
    frames, side = 3, 128
    largest = 0

    def pack(tensor):
        nonlocal largest
        if tensor.shape[-2:] == (side // 4, side // 4) or (side // 4) ** 2 in tensor.shape:
            largest = max(largest, tensor.numel() // (side // 4) ** 2)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randn(1, frames, 3, side, side), **labels(1, frames, side, side, instances=2))
    # maps kept: features of `frames` frames with 32 channels, and 3 layers × 2 matched masks × 3 frames
    assert 0 < largest <= frames * 32


# -- Divisors ----------------------------------------------------------------------------------------------------------


def test_normalizers_by_count():
    config = tiny_model().config  # 12 frame queries, 10 video queries, 3 layers
    presence = [torch.ones(3, 2, dtype=torch.bool), torch.tensor([[False, True]])]
    numbers = count_loss_normalizers(config, presence)
    numbers = {name: value.item() for name, value in numbers.items()}
    assert numbers == pytest.approx(
        {
            "frame_masks": 3 + 3 + 0 + 1,
            "frame_classes": 7 + 0.1 * (4 * 12 - 7),
            "video_masks": 3 * (3 + 1),
            "video_classes": 3 * (4 + 0.1 * (2 * 10 - 4)),
            "similarity_pairs": 3 * ((3 + 3 + 3) ** 2 + (0 + 1 + 1) ** 2),
        }
    )


@pytest.mark.parametrize(
    "fields",
    [{"use_auxiliary_loss": False}, {"use_video_auxiliary_loss": False}, {"use_similarity_head": False}],
    ids=lambda fields: next(iter(fields)),
)
def test_terms_that_the_config_leaves_out(fields):
    model = tiny_model(**fields).train()
    out = model(torch.randn(1, 2, 3, 64, 64), **labels(1, 2, 64, 64))
    out.loss.backward()
    expected = {f"loss_{term}{i}" for term in ("ce", "mask", "dice") for i in ("", "_0", "_1", "_2")}
    expected |= {f"loss_vita_{term}{i}" for term in ("ce", "mask", "dice") for i in ("", "_0", "_1")}
    expected |= {"loss_vita_sim"}
    if "use_auxiliary_loss" in fields:
        expected -= {name for name in expected if name[-1].isdigit() and "vita" not in name}
    if "use_video_auxiliary_loss" in fields:
        expected -= {name for name in expected if name[-1].isdigit() and "vita" in name}
    if "use_similarity_head" in fields:
        expected -= {"loss_vita_sim"}
    assert set(out.loss_dict) == expected
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


# -- Instance presence -------------------------------------------------------------------------------------------------


def odd_presence():
    """Labels in which an instance is absent from a frame, and one from the whole clip."""
    targets = labels(2, 2, 64, 64)
    targets["mask_labels"][0][1, 0] = False
    targets["mask_labels"][1][2] = False
    presence = [torch.tensor([[1, 1], [0, 1], [1, 1]]).bool(), torch.tensor([[1, 1], [1, 1], [0, 0]]).bool()]
    return targets, presence


def test_given_presence_is_not_computed_again(monkeypatch):
    model, video = tiny_model().train(), torch.randn(2, 2, 3, 64, 64)
    targets, presence = odd_presence()
    from_masks = find_instance_presence(targets["mask_labels"])
    assert all(torch.equal(a, b) for a, b in zip(from_masks, presence, strict=True))
    losses = []
    for given in ({}, {"instance_presence": presence}):
        torch.manual_seed(2)
        losses.append(model(video, **targets, **given).loss_dict)
        monkeypatch.setattr(loss_vita, "find_instance_presence", lambda masks: pytest.fail("computed again"))
    assert all(torch.equal(losses[0][name], term) for name, term in losses[1].items())


def test_presence_of_another_shape_is_refused():
    targets, presence = odd_presence()
    message = (
        r"instance_presence: expected \(N, T\) = \[\(3, 2\), \(3, 2\)\] for the mask_labels, got \[\(2, 2\), \(3, 2\)\]"
    )
    with pytest.raises(ValueError, match=message):
        tiny_model()(torch.randn(2, 2, 3, 64, 64), **targets, instance_presence=[presence[0][:2], presence[1]])

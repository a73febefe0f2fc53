"""How a batch is spread over processes, micro-batches and shards changes neither losses nor gradients."""

import itertools
import os
import time

import pytest
import torch
import torch.multiprocessing as mp
from torch.distributed import init_device_mesh
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from helpers.models import tiny_model
from vita_hf import VitaForVideoInstanceSegmentation, loss_vita
from vita_hf.loss_targets import find_instance_presence
from vita_hf.loss_vita import count_loss_normalizers, reduce_loss_normalizers

STEPS = 3


def uneven_batch():
    """Two clips, one with three instances in both frames, one with a single instance in one frame."""
    generator = torch.Generator().manual_seed(11)
    video = torch.randn(2, 2, 3, 64, 64, generator=generator)
    first = torch.rand(3, 2, 64, 64, generator=generator) > 0.7
    second = torch.zeros(1, 2, 64, 64, dtype=torch.bool)
    second[0, 1, 5:40, 9:50] = True
    return {
        "pixel_values_videos": video,
        "mask_labels": [first, second],
        "class_labels": [torch.tensor([1, 2, 3]), torch.tensor([5])],
    }


def share(batch: dict, clip: int) -> dict:
    return {name: values[clip : clip + 1] for name, values in batch.items()}


class PointsOfSamples:
    """Replaces the random points by ones seeded by clip, prediction, layer, frame and mask.

    The losses ask for them in a fixed order; `clips` are the numbers of the batch's clips in the whole batch.
    """

    def __init__(self, monkeypatch, config, batch: dict, clips: list[int]):
        frames = range(batch["pixel_values_videos"].shape[1])
        present = [masks.flatten(2).any(-1) for masks in batch["mask_labels"]]
        matching, losses = [], []
        for prediction in range(config.decoder_layers):
            items = [(0, prediction, clip, t) for clip in clips for t in frames]
            counts = [int(seen[:, t].sum()) for seen in present for t in frames]
            matching += items
            losses.append([(*item, mask) for item, count in zip(items, counts) for mask in range(count)])
        for prediction in range(config.object_decoder_layers):
            items = [(1, prediction, clip, layer) for layer in range(config.num_last_layers) for clip in clips]
            counts = [int(seen.any(1).sum()) for seen in present] * config.num_last_layers
            matching += items
            losses.append(
                [(*item, mask, t) for item, count in zip(items, counts) for mask in range(count) for t in frames]
            )
        self.points = config.train_num_points
        self.matching, self.losses = itertools.cycle(matching), itertools.cycle(losses)
        monkeypatch.setattr(loss_vita, "sample_matching_points", self.for_matching)
        monkeypatch.setattr(loss_vita, "sample_uncertain_points", self.uncertain)

    def seeded(self, key: tuple[int, ...]) -> torch.Tensor:
        seed = sum(100**place * (number + 1) for place, number in enumerate(key))
        return torch.rand(1, self.points, 2, generator=torch.Generator().manual_seed(seed))

    def for_matching(self, items: int, *_) -> torch.Tensor:
        return torch.cat([self.seeded(next(self.matching)) for _ in range(items)])

    def uncertain(self, logits: torch.Tensor, *_) -> torch.Tensor:
        keys = next(self.losses)
        assert len(keys) == len(logits)
        return torch.cat([self.seeded(key) for key in keys])


def gradients_of(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def detached(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: term.detach().clone() for name, term in losses.items()}


def expect_close(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Within 1e-5 of the largest value of each tensor, or of one."""
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        scale = max(values.abs().max().item(), 1)
        torch.testing.assert_close(actual[name], values, rtol=0, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def whole():
    """Losses and gradients of both clips in one batch, and what `STEPS` optimizer steps on it do."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        model, batch = tiny_model().train(), uneven_batch()
        PointsOfSamples(monkeypatch, model.config, batch, [0, 1])
        optimizer = optimizer_of(model)
        losses, gradients = [], None
        for _ in range(STEPS):
            optimizer.zero_grad()
            outputs = model(**batch)
            outputs.loss.backward()
            losses.append(detached(outputs.loss_dict))
            gradients = gradients or gradients_of(model)
            optimizer.step()
        return {"losses": losses, "gradients": gradients, "weights": model.state_dict()}


def optimizer_of(model) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)


def test_points_differ_between_samples_and_are_the_same_again(monkeypatch):
    model, batch = tiny_model(), uneven_batch()
    both = PointsOfSamples(monkeypatch, model.config, batch, [0, 1])
    keys = [next(both.matching) for _ in range(4)]
    points = [both.seeded(key) for key in keys]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(points, 2))
    second = PointsOfSamples(monkeypatch, model.config, share(batch, 1), [1])
    assert [next(second.matching) for _ in range(2)] == keys[2:]
    assert torch.equal(second.seeded(keys[3]), points[3])


def test_accumulated_micro_batches_equal_one_batch(whole, monkeypatch):
    model, batch = tiny_model().train(), uneven_batch()
    parts = [share(batch, clip) for clip in range(2)]
    counted = [count_loss_normalizers(model.config, find_instance_presence(part["mask_labels"])) for part in parts]
    summed = {name: counted[0][name] + counted[1][name] for name in counted[0]}
    divisors = reduce_loss_normalizers(summed, torch.device("cpu"), micro_batches=2)
    means = dict.fromkeys(whole["losses"][0], 0.0)
    for clip, part in enumerate(parts):
        PointsOfSamples(monkeypatch, model.config, part, [clip])
        outputs = model(**part, loss_normalizers=divisors)
        (outputs.loss / 2).backward()
        means = {name: mean + outputs.loss_dict[name].detach() / 2 for name, mean in means.items()}
    expect_close(means, whole["losses"][0])
    expect_close(gradients_of(model), whole["gradients"])


# -- Two processes -----------------------------------------------------------------------------------------------------


def mean_losses(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Means over the processes."""
    values = torch.stack(list(losses.values())).detach()
    torch.distributed.all_reduce(values)
    return dict(zip(losses, values / torch.distributed.get_world_size()))


def data_parallel(part: dict) -> dict:
    model = tiny_model().train()
    parallel = torch.nn.parallel.DistributedDataParallel(model)  # also: every parameter takes part
    outputs = parallel(**part)
    outputs.loss.backward()
    return {"losses": mean_losses(outputs.loss_dict), "gradients": gradients_of(model)}


def sharded(part: dict, folder: str) -> dict:
    """Train with sharded parameters, gather them and write the model as `save_pretrained` does."""
    model = tiny_model().train()
    elements = sum(p.numel() for p in model.parameters())
    mesh = init_device_mesh("cpu", (2,))
    for module in list(model.modules()):
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = optimizer_of(model)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        outputs = model(**part)
        outputs.loss.backward()
        losses.append(mean_losses(outputs.loss_dict))
        optimizer.step()
    here = sum(p.to_local().numel() for p in model.parameters())
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if torch.distributed.get_rank() == 0:
        model.save_pretrained(f"{folder}/model", state_dict=weights)
    return {"losses": losses, "weights": weights, "share": here / elements}


def one_of_two_processes(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        part, config = share(uneven_batch(), rank), tiny_model().config
        results = {"world size": torch.distributed.get_world_size()}
        PointsOfSamples(monkeypatch, config, part, [rank])
        results["data parallel"] = data_parallel(part)
        PointsOfSamples(monkeypatch, config, part, [rank])
        results["sharded"] = sharded(part, folder)
        if rank == 0:
            torch.save(results, f"{folder}/result.tmp")
            os.rename(f"{folder}/result.tmp", f"{folder}/result.pt")
        while not os.path.exists(f"{folder}/result.pt"):
            time.sleep(0.05)  # a process that leaves early can keep the other waiting in its last exchange
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("two_processes")
    mp.start_processes(one_of_two_processes, args=(str(folder),), nprocs=2, start_method="spawn")
    results = torch.load(folder / "result.pt", weights_only=True)
    assert results["world size"] == 2
    return {**results, "folder": folder / "model"}


def test_two_processes_equal_one(two_processes, whole):
    results = two_processes["data parallel"]
    expect_close(results["losses"], whole["losses"][0])
    expect_close(results["gradients"], whole["gradients"])


def test_sharded_training_equals_unsharded(two_processes, whole):
    results = two_processes["sharded"]
    assert 0.45 < results["share"] < 0.55  # each process holds half of the parameters
    for losses, expected in zip(results["losses"], whole["losses"], strict=True):
        expect_close(losses, expected)
    totals = [sum(losses.values()).item() for losses in whole["losses"]]
    assert totals[0] > totals[1] > totals[2]  # it does train
    expect_close(results["weights"], whole["weights"])


def test_sharded_model_reloads_to_the_same_weights(two_processes):
    model, report = VitaForVideoInstanceSegmentation.from_pretrained(two_processes["folder"], output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    weights = two_processes["sharded"]["weights"]
    assert model.state_dict().keys() == weights.keys()
    assert [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, weights[name])] == []

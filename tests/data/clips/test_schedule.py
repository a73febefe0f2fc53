"""The schedule of samples, the dataset over it, and how steps are cut into batches."""

import pickle
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from helpers.clip_rows import noise_row
from vita_hf.data.clips.sampling import draw_clip
from vita_hf.data.clips.schedule import ClipDataset, Draw, SampleSchedule, StepBatchSampler
from vita_hf.data.clips.settings import ClipSettings
from vita_hf.data.frames import BrokenSampleError

SETTINGS = ClipSettings(
    num_frames=3,
    frame_range=4,
    crop_resize_short_edges=[40, 48],
    crop_max_long_edge=None,
    crop_size=(24, 40),
    short_edges=[24, 32],
)


def test_sources_are_drawn_by_weight_and_independently():
    schedule = SampleSchedule([1000, 500, 10], [1.0, 0.75, 0.0], seed=3)
    sources = np.array([schedule[n].source for n in range(20_000)])
    assert set(sources) == {0, 1}
    assert abs((sources == 1).mean() - 0.75 / 1.75) < 0.012
    # neighbors tell nothing about one another
    assert abs(np.corrcoef(sources[:-1], sources[1:])[0, 1]) < 0.03


def test_each_source_is_a_stream_of_permutations():
    schedule = SampleSchedule([20, 50], [1, 3], seed=0)
    streams = defaultdict(list)
    for n in range(2000):
        source, epoch, index = schedule[n]
        streams[source].append((epoch, index))
    for source, size in ((0, 20), (1, 50)):
        orders = []
        for start in range(0, len(streams[source]) - size, size):
            epochs, order = zip(*streams[source][start : start + size])
            assert set(epochs) == {start // size} and sorted(order) == list(range(size))
            orders.append(order)
        assert len(set(orders)) == len(orders) >= 20


def test_any_order_of_access_and_any_copy_gives_the_same_schedule():
    numbers = [200_000, 3, 70_000, 65_535, 65_536, 0]
    first, second = (SampleSchedule([5, 9], [1, 1], seed=1) for _ in range(2))
    jumping = {n: first[n] for n in numbers}
    assert jumping == {n: second[n] for n in sorted(numbers)}
    other = SampleSchedule([5, 9], [1, 1], seed=2)
    assert jumping != {n: other[n] for n in numbers}


def test_positions_go_on_across_blocks(monkeypatch):
    monkeypatch.setattr(SampleSchedule, "BLOCK", 64)
    schedule, seen = SampleSchedule([30, 3], [1, 1], seed=5), Counter()
    for n in range(500):
        source, epoch, _ = schedule[n]
        assert epoch == seen[source] // schedule.sizes[source]
        seen[source] += 1
    assert set(seen) == {0, 1}


def test_a_whole_training_of_samples_is_cheap():
    schedule = SampleSchedule([117_266, 2_238], [1, 0.75], seed=0)
    start = time.process_time()
    draw = schedule[1_500_000]
    assert time.process_time() - start < 1
    assert draw.source in (0, 1) and sum(block.nbytes for block in schedule._blocks) < 2_000_000


def test_every_draw_has_random_numbers_of_its_own():
    schedule = SampleSchedule([3, 3], [1, 1], seed=0)
    values = [schedule.rng(n).random() for n in range(100)]
    assert len(set(values)) == 100
    assert values == [SampleSchedule([3, 3], [1, 1], seed=0).rng(n).random() for n in range(100)]
    # row by row the same whatever else is mixed in: the stream follows from source, epoch and index
    alone = SampleSchedule([3], [1], seed=0)
    by_draw = {alone[n]: alone.rng(n).random() for n in range(30)}
    mixed = {schedule[n]: value for n, value in enumerate(values) if schedule[n].source == 0}
    assert len(set(by_draw) & set(mixed)) >= 25
    assert all(by_draw[draw] == mixed[draw] for draw in set(by_draw) & set(mixed))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([], []), "sizes and weights: expected one each for every source"),
        (([3], [1, 2]), r"sizes and weights: .* got \[3\] and \[1, 2\]"),
        (([3, 0], [1, 2]), r"sizes: every source must have at least one row, got \[3, 0\]"),
        (([3, 4], [1, -2]), "weights: expected non-negative numbers"),
        (([3, 4], [0, 0]), "weights: expected non-negative numbers, at least one above 0"),
        (([3], [float("nan")]), "weights"),
    ],
)
def test_schedules_that_cannot_work_say_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        SampleSchedule(*arguments, seed=0)


def test_a_schedule_ends_where_it_was_told_to():
    schedule = SampleSchedule([3], [1], 0, num_samples=10)
    assert len(schedule) == 10 and schedule[9].epoch == 3
    for n in (10, -1):
        with pytest.raises(IndexError, match=f"sample {n}: the schedule has the samples 0 to 9"):
            schedule[n]


# --- steps and batches


def batches(**kwargs) -> list[list[int]]:
    return list(StepBatchSampler(5, 12, **kwargs))


def test_steps_are_consecutive_samples_however_they_are_cut():
    whole = batches()
    assert whole == [list(range(12 * step, 12 * step + 12)) for step in range(5)]
    for micro_batches, num_processes in ((1, 2), (3, 1), (2, 2), (3, 4)):
        cut = [
            batches(micro_batches=micro_batches, num_processes=num_processes, process_index=process)
            for process in range(num_processes)
        ]
        assert all(len(own) == 5 * micro_batches for own in cut)
        for step in range(5):
            parts = [
                cut[process][step * micro_batches + m] for m in range(micro_batches) for process in range(num_processes)
            ]
            assert [n for part in parts for n in part] == whole[step]


def test_two_processes_see_the_samples_of_one_with_twice_the_batch():
    one = list(StepBatchSampler(4, 8, micro_batches=2))
    first, second = (list(StepBatchSampler(4, 8, micro_batches=2, num_processes=2, process_index=p)) for p in (0, 1))
    assert [a + b for a, b in zip(first, second)] == one and len(one) == 8


def test_a_resumed_sampler_continues_the_batches():
    kwargs = dict(micro_batches=2, num_processes=3, process_index=1)
    assert batches(start_step=2, **kwargs) == batches(**kwargs)[4:]
    sampler = StepBatchSampler(5, 12, start_step=2, **kwargs)
    assert len(sampler) == len(list(sampler)) == 6
    assert batches(start_step=5) == []


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(micro_batches=5), "batch_size: expected a multiple of micro_batches · num_processes = 5.*, got 12"),
        (dict(num_processes=2, process_index=2), "process_index: expected 0 to 1, got 2"),
        (dict(start_step=6), "start_step: expected 0 to 5, got 6"),
        (dict(micro_batches=0), "all positive"),
    ],
)
def test_samplers_that_cannot_work_say_why(kwargs, message):
    with pytest.raises(ValueError, match=message):
        batches(**kwargs)


# --- dataset


def make_dataset(**kwargs) -> ClipDataset:
    sources = [[noise_row(1, video_id=i) for i in range(4)], [noise_row(9, video_id=10 + i) for i in range(3)]]
    return ClipDataset(sources, [SETTINGS] * 2, SampleSchedule([4, 3], [1, 1], seed=0), **kwargs)


def identity(clips):
    return clips


def test_clips_are_those_of_the_schedule():
    dataset = make_dataset()
    for n in (0, 5, 17):
        source, _, index = dataset.schedule[n]
        expected = draw_clip(dataset.sources[source][index], SETTINGS, dataset.schedule.rng(n))
        clip = dataset[n]
        assert clip["video_id"] == source * 10 + index and clip["skipped"] == []
        assert torch.equal(clip["pixel_values"], expected["pixel_values"])


def test_clips_are_the_same_with_and_without_workers():
    dataset = make_dataset()
    loaded = [
        list(
            DataLoader(
                dataset,
                batch_sampler=StepBatchSampler(3, 4, micro_batches=2),
                num_workers=workers,
                collate_fn=identity,
            )
        )
        for workers in (0, 2)
    ]
    alone, shared = ([clip for batch in batches for clip in batch] for batches in loaded)
    assert len(alone) == len(shared) == 12
    assert len({clip["pixel_values"].numpy().tobytes() for clip in alone}) == 12
    for a, b in zip(alone, shared):
        assert a["frame_indices"] == b["frame_indices"] and a["video_id"] == b["video_id"]
        assert torch.equal(a["pixel_values"], b["pixel_values"]) and torch.equal(a["mask_labels"], b["mask_labels"])


def test_a_dataset_that_was_pickled_gives_the_same_clips():  # as for workers that don't start by forking
    dataset = make_dataset()
    before = dataset[3]["pixel_values"]
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]["pixel_values"], before)


def test_the_same_row_gives_another_clip_in_another_epoch():
    dataset = make_dataset()
    clips = defaultdict(list)
    for n in range(40):
        if dataset.schedule[n].source == 1:
            clips[dataset.schedule[n].index].append(dataset[n]["pixel_values"].numpy().tobytes())
    assert all(len(set(seen)) == len(seen) >= 3 for seen in clips.values())


def test_a_broken_row_is_an_error_or_a_counted_skip():
    strict, lenient = make_dataset(), make_dataset(skip_broken=True)
    n = next(n for n in range(100) if strict.schedule[n][::2] == (1, 2))
    for dataset in (strict, lenient):
        for frame in dataset.sources[1][2]["frames"]:
            frame["bytes"] = b"no image"
    with pytest.raises(BrokenSampleError, match="video 12"):
        strict[n]
    clip = lenient[n]
    assert clip["video_id"] == 10  # the first row comes after the last
    assert len(clip["skipped"]) == 1 and "video 12" in clip["skipped"][0]
    expected = draw_clip(lenient.sources[1][0], SETTINGS, lenient.schedule.rng(n))
    assert torch.equal(clip["pixel_values"], expected["pixel_values"])
    for row in lenient.sources[1]:
        row["frames"] = []
    with pytest.raises(ValueError, match="all 3 rows of source 1 are broken; the first: video 12, frames: expected at"):
        lenient[n]


def test_a_schedule_of_other_sources_is_refused():
    with pytest.raises(ValueError, match=r"sources with \[1\] rows do not match a schedule for \[2\] and 1 settings"):
        ClipDataset([[noise_row(1)]], [SETTINGS], SampleSchedule([2], [1], 0))


def test_draws_are_named():
    draw = SampleSchedule([3], [1], 0)[4]
    assert isinstance(draw, Draw) and draw == (0, 1, draw.index)

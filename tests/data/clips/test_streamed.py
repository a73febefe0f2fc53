"""Rows of a stream: their order, resuming, and how processes share them."""

import os
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.annotation_files import HEIGHT, WIDTH, make_ytvis, track, write
from vita_hf.data.clips.schedule import StepBatchSampler
from vita_hf.data.clips.streamed import StreamBatchSampler, stream_rows
from vita_hf.data.datasets import read_ytvis
from vita_hf.data.parquet import read_parquet, write_parquet


@pytest.fixture
def stream(tmp_path):
    """20 rows, one in five without an object, in shards of two."""
    content = make_ytvis(tmp_path, videos=1, length=1)
    name = content["videos"][0]["file_names"][0]
    content["videos"] = [{"id": k, "height": HEIGHT, "width": WIDTH, "file_names": [name]} for k in range(1, 21)]
    content["annotations"] = [track(k, k, 2, [[[1, 1, 9, 1, 9, 9]]]) for k in range(1, 21) if k % 5]
    path = write(tmp_path / "train.json", content)
    dataset = read_ytvis(path, tmp_path / "frames", cache_dir=tmp_path / "cache")
    write_parquet(dataset, tmp_path / "out", shard_bytes=2 * os.path.getsize(tmp_path / "frames" / name))
    return read_parquet(tmp_path / "out", streaming=True).rows


def take(stream, count: int) -> list[int]:
    return [row["video_id"] for _, _, row in islice(stream, count)]


EVERY = [k for k in range(1, 21) if k % 5]


def materialised(stream, seed: int, epoch: int, buffer_size: int) -> list[int]:
    """The order of an epoch, from all ids at once: shards of two, their order, then draws from a sliding buffer."""
    random = np.random.default_rng((seed, epoch))
    shards = [[row["video_id"] for row in stream.shard(10, index)] for index in range(10)]
    ids = [key for shard in random.permutation(10) for key in shards[shard] if key % 5]
    order, held = [], ids[:buffer_size]
    for key in ids[buffer_size:]:
        drawn = random.integers(buffer_size)
        order.append(held[drawn])
        held[drawn] = key
    return order + [held[drawn] for drawn in random.permutation(len(held))]


def test_the_stream_is_the_materialised_order_epoch_after_epoch(stream):
    assert stream.num_shards == 10
    expected = [materialised(stream, 5, epoch, 4) for epoch in range(3)]
    assert all(sorted(order) == EVERY for order in expected)
    assert len({tuple(order) for order in [*expected, EVERY]}) == 4
    assert take(stream_rows(stream, seed=5, buffer_size=4), 48) == [key for order in expected for key in order]
    assert take(stream_rows(stream, seed=5, epoch=2, buffer_size=4), 16) == expected[2]
    assert take(stream_rows(stream, seed=6, buffer_size=4), 16) == materialised(stream, 6, 0, 4) != expected[0]
    everything = take(stream_rows(stream, seed=5, buffer_size=100), 16)  # more than there are
    assert everything == materialised(stream, 5, 0, 100) and sorted(everything) == EVERY


@pytest.mark.parametrize("done", [1, 16, 40])
def test_a_stream_resumes_where_it_was(stream, done):
    whole = take(stream_rows(stream, seed=1, buffer_size=4), 48)
    first = stream_rows(stream, seed=1, buffer_size=4)
    for _ in range(done):
        epoch, position, _ = next(first)
    second = stream_rows(stream, seed=1, epoch=epoch, position=position, buffer_size=4)
    assert take(second, 48 - done) == whole[done:]
    assert take(first, 48 - done) == whole[done:]  # two streams over one set don't disturb each other


def test_streams_that_cannot_resume(stream):
    with pytest.raises(ValueError, match="position 17 of epoch 0: the stream has 16 rows with objects"):
        next(stream_rows(stream, seed=0, position=17))
    with pytest.raises(ValueError, match="the stream has no row with an annotated object"):
        next(stream_rows(stream.filter(lambda row: row["video_id"] % 5 == 0), seed=0))
    with pytest.raises(ValueError, match="buffer_size: expected at least 1, got 0"):
        next(stream_rows(stream, seed=0, buffer_size=0))


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_processes_share_a_stream(monkeypatch, micro_batches):
    """Each process knows where the next step starts when it has read its part; together they read each row once."""

    def stream_rows(rows, seed, epoch, position):
        for n in count(10 * epoch + position):  # ten rows an epoch
            yield n // 10, n % 10 + 1, {"video_id": n}

    monkeypatch.setattr("vita_hf.data.clips.streamed.stream_rows", stream_rows)
    clips = SimpleNamespace(rows=None, seed=0)
    options = {"micro_batches": micro_batches, "num_processes": 2}
    places, seen = [], []
    for process in (0, 1):
        sampler = StreamBatchSampler(clips, StepBatchSampler(3, 8, process_index=process, **options))
        batches = iter(sampler)
        for step in range(1, 4):
            for _ in range(micro_batches):
                seen += [(n, row["video_id"]) for n, row in next(batches)]
            places.append((step, sampler.place(step)))
    assert sorted(seen) == [(n, n) for n in range(24)]
    assert places[:3] == places[3:] == [(1, [0, 8]), (2, [1, 6]), (3, [2, 4])]
    resumed = StreamBatchSampler(clips, StepBatchSampler(3, 8, process_index=1, start_step=2, **options), [1, 6])
    rest = [(n, row["video_id"]) for batch in resumed for n, row in batch]
    assert rest == [item for item in seen[12:] if item[0] >= 16]

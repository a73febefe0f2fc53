from types import SimpleNamespace

import pytest

from vita_hf.data.clips.schedule import StepBatchSampler
from vita_hf.data.clips.streamed import StreamBatchSampler


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_processes_share_a_stream(monkeypatch, micro_batches):
    """Both know the place of the next step when they have read their own part, and together read every row once."""

    class Stream:
        def __init__(self, rows, seed, epoch, buffer_size, position):
            self.epoch, self.position = epoch, position

        def __next__(self):
            self.position += 1
            if self.position > 10:
                self.epoch, self.position = self.epoch + 1, 1
            return {"video_id": 10 * self.epoch + self.position - 1}

    monkeypatch.setattr("vita_hf.data.clips.streamed.RowStream", Stream)
    clips = SimpleNamespace(rows=None, seed=0, buffer_size=1)
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

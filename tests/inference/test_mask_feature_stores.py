import errno
import os

import pytest
import torch

from vita_hf.inference import mask_feature_stores
from vita_hf.inference.mask_feature_stores import (
    DiskStore,
    HostStore,
    MaskFeatureStore,
    RecomputeStore,
    free_memory,
    make_store,
    to_half,
)


@pytest.fixture
def chunks():
    """Three chunks of mask features, the last one shorter."""
    return list(torch.randn(8, 5, 6, 7, generator=torch.Generator().manual_seed(0)).mul_(50).split(3))


@pytest.fixture
def temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def filled(store, chunks):
    for chunk in chunks:
        store.append(chunk)
    return list(store.chunks())


def test_the_device_keeps_what_it_was_given(chunks):
    assert all(got is chunk for got, chunk in zip(filled(MaskFeatureStore(), chunks), chunks, strict=True))


@pytest.mark.parametrize("store", [HostStore, DiskStore])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_host_and_disk_keep_half_precision(chunks, store, dtype):
    chunks = [chunk.to(dtype) for chunk in chunks]
    store = store()
    for got, chunk in zip(filled(store, chunks), chunks, strict=True):
        assert got.dtype == (torch.float16 if dtype == torch.float32 else dtype)
        assert torch.equal(got, chunk.to(got.dtype))
    store.close()


def test_what_half_precision_cannot_hold_is_its_largest():
    got = to_half(torch.tensor([1e6, -torch.inf, 65504.0, torch.nan]))
    assert got.tolist()[:3] == [65504.0, -65504.0, 65504.0] and got[3].isnan()


def test_chunks_that_are_no_copies_of_their_own(chunks):
    """Transposed and expanded tensors are written in order as well."""
    strided = [chunk.transpose(2, 3) for chunk in chunks]
    for got, chunk in zip(filled(DiskStore(), strided), strided, strict=True):
        assert torch.equal(got, chunk.half())


def test_the_disk_file_has_no_name(chunks, temporary_folder):
    store = DiskStore()
    filled(store, chunks)
    assert os.fstat(store._file.fileno()).st_size == 8 * 5 * 6 * 7 * 2
    if os.name == "posix":
        assert list(temporary_folder.iterdir()) == []
    store.close()
    assert list(temporary_folder.iterdir()) == []


def test_a_full_disk_is_named(chunks, temporary_folder):
    store = DiskStore()

    class Full:
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

        def tell(self):
            return 3 * 2**20

    store._file = Full()
    with pytest.raises(
        OSError, match=r"no space left in the temporary folder .*have filled 3 MiB; set TMPDIR"
    ) as error:
        store.append(chunks[0])
    assert str(temporary_folder) in str(error.value)


def test_recomputing_keeps_nothing(chunks):
    store = RecomputeStore(lambda: iter(chunks[::-1]))
    store.append(torch.zeros(1))
    assert list(store.chunks()) == chunks[::-1]


# A chunk of 3 frames of 5·6·7 floats: 840 bytes a frame in full, 420 in half precision.
@pytest.mark.parametrize(
    "mode, memory, disk, frames, expected",
    [
        ("auto", 2 * 840_000, 0, 1000, MaskFeatureStore),
        ("auto", 2 * 840_000 - 1, 0, 1000, HostStore),
        ("auto", 2 * 420_000 - 1, 2 * 420_000, 1000, DiskStore),
        ("auto", 2 * 420_000 - 1, 2 * 420_000 - 1, 1000, RecomputeStore),
        ("auto", 2**40, 2**40, None, DiskStore),
        ("exact", 2 * 840_000, 0, 1000, MaskFeatureStore),
        ("exact", 2 * 840_000 - 1, 2**40, 1000, RecomputeStore),
        ("exact", 2**40, 2**40, None, RecomputeStore),
        ("device", 0, 0, 1000, MaskFeatureStore),
        ("host", 0, 0, 1000, HostStore),
        ("disk", 0, 420_000, 1000, DiskStore),
        ("disk", 0, 0, None, DiskStore),
        ("recompute", 2**40, 2**40, 1000, RecomputeStore),
    ],
)
def test_automatic_choice(chunks, monkeypatch, mode, memory, disk, frames, expected):
    monkeypatch.setattr(mask_feature_stores, "free_memory", lambda device: memory)
    monkeypatch.setattr(mask_feature_stores, "free_disk", lambda: disk)
    assert type(make_store(mode, chunks[0], frames, lambda: iter(chunks))) is expected


def test_no_room_on_disk_is_said_beforehand(chunks, monkeypatch, temporary_folder):
    monkeypatch.setattr(mask_feature_stores, "free_disk", lambda: 2**22)
    with pytest.raises(OSError, match=r"the mask features of 10000 frames need 5 MiB; set TMPDIR .*'recompute'"):
        make_store("disk", chunks[0], 10_000, None)


@pytest.mark.parametrize("mode", ["exact", "recompute"])
def test_a_second_pass_needs_a_video_that_can_be_read_twice(chunks, monkeypatch, mode):
    monkeypatch.setattr(mask_feature_stores, "free_memory", lambda device: 0)
    with pytest.raises(ValueError, match=f"mask_features='{mode}' needs a second pass .* gives its frames only once"):
        make_store(mode, chunks[0], 1000, None)


def test_free_memory_is_at_most_the_machines():
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free_memory(torch.device("cpu")) <= physical

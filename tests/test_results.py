import json

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api

from vita_hf.results import VideoInstances, encode_masks


@pytest.fixture
def masks():
    return torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.6


@pytest.fixture(params=["masks", "rle"])
def instances(request, masks):
    return VideoInstances(
        scores=torch.tensor([0.9, 0.5, 0.5, 0.1]),
        labels=torch.tensor([2, 0, 2, 1]),
        masks=masks if request.param == "masks" else [encode_masks(track) for track in masks],
        query_indices=torch.tensor([7, 3, 7, 0]),
        size=(5, 7),
        num_frames=3,
        id2label={0: "person", 1: "dog", 2: "cat"},
    )


def dense(instances):
    """The masks as a bool array (k, T, h, w), whatever form they are in."""
    if isinstance(instances.masks, torch.Tensor):
        return instances.masks.numpy()
    tracks = [[mask_api.decode(rle).astype(bool) for rle in track] for track in instances.masks]
    return np.array(tracks).reshape(len(instances), instances.num_frames, *instances.size)


def test_encode_masks_counts_columns_first():
    mask = torch.tensor([[[0, 1, 1], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]], dtype=torch.bool)
    # Column by column: 2 zeros, then 3 ones (both of column 1, the upper of column 2), then 1 zero; all 6 zero.
    uncompressed = [{"size": [2, 3], "counts": [2, 3, 1]}, {"size": [2, 3], "counts": [6]}]
    expected = [mask_api.frPyObjects(rle, 2, 3) for rle in uncompressed]
    got = encode_masks(mask)
    assert got == [{"size": [2, 3], "counts": rle["counts"].decode()} for rle in expected]
    np.testing.assert_array_equal(mask_api.decode(got[0]), mask[0].numpy())


@pytest.mark.parametrize(
    "index, rows",
    [
        (0, [0]),
        (-1, [3]),
        (np.int64(2), [2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        ([3, 0], [3, 0]),
        ([], []),
        ([True, False, False, True], [0, 3]),
        (np.array([False, True, True, False]), [1, 2]),
        (torch.tensor([2, 2]), [2, 2]),
        (torch.tensor([False, False, False, False]), []),
    ],
)
def test_indexing_keeps_every_field_of_the_chosen_tracks(instances, masks, index, rows):
    chosen = instances[index]
    assert isinstance(chosen, VideoInstances)
    assert len(chosen) == len(rows)
    assert chosen.track_ids.tolist() == rows
    assert chosen.query_indices.tolist() == [[7, 3, 7, 0][row] for row in rows]
    assert chosen.labels.tolist() == [[2, 0, 2, 1][row] for row in rows]
    torch.testing.assert_close(chosen.scores, instances.scores[rows], rtol=0, atol=0)
    np.testing.assert_array_equal(dense(chosen), masks[rows].numpy())
    assert type(chosen.masks) is type(instances.masks)
    assert (chosen.size, chosen.num_frames, chosen.id2label) == ((5, 7), 3, instances.id2label)


def test_iterating_gives_single_tracks(instances):
    assert [track.track_ids.tolist() for track in instances] == [[0], [1], [2], [3]]


@pytest.mark.parametrize("index", [4, -5, [4], [True, False]])
def test_index_out_of_range(instances, index):
    with pytest.raises(IndexError):
        instances[index]


def test_filter_by_score_and_label(instances):
    assert instances.filter(min_score=0.5).track_ids.tolist() == [0, 1, 2]
    assert instances.filter(labels=[2]).track_ids.tolist() == [0, 2]
    assert instances.filter(min_score=0.6, labels=[2, 1]).track_ids.tolist() == [0]
    assert instances.filter(labels=[]).track_ids.tolist() == []
    assert instances.filter().track_ids.tolist() == [0, 1, 2, 3]
    # Track ids are identities, not positions: they survive a second selection.
    assert instances.filter(labels=[2])[1].track_ids.tolist() == [2]


def test_label_names(instances):
    assert instances.label_names == ["cat", "person", "cat", "dog"]
    instances.id2label = {0: "person"}
    assert instances.label_names == ["2", "person", "2", "1"]
    instances.id2label = None
    assert instances.label_names == ["2", "0", "2", "1"]


def test_to_ytvis_is_json_with_an_rle_for_every_frame(instances, masks):
    masks[1, 2] = False  # a frame without a pixel
    instances.masks = masks if isinstance(instances.masks, torch.Tensor) else [encode_masks(track) for track in masks]
    entries = json.loads(json.dumps(instances.to_ytvis(12)))
    assert [entry["video_id"] for entry in entries] == [12] * 4
    assert [entry["category_id"] for entry in entries] == [3, 1, 3, 2]
    assert [entry["score"] for entry in entries] == pytest.approx([0.9, 0.5, 0.5, 0.1])
    assert all(set(entry) == {"video_id", "category_id", "score", "segmentations"} for entry in entries)
    decoded = [[mask_api.decode(rle) for rle in entry["segmentations"]] for entry in entries]
    np.testing.assert_array_equal(np.array(decoded, dtype=bool), masks.numpy())
    assert decoded[1][2].sum() == 0


@pytest.mark.parametrize("category_ids", [[10, 20, 30], {0: 10, 1: 20, 2: 30}])
def test_to_ytvis_takes_other_category_ids(instances, category_ids):
    assert [e["category_id"] for e in instances.to_ytvis(1, category_ids=category_ids)] == [30, 10, 30, 20]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": torch.tensor([1, 2])}, r"labels must have the shape \(4,\) like scores, got \(2,\)"),
        ({"track_ids": torch.zeros(4, 1)}, r"track_ids must have the shape \(4,\) like scores, got \(4, 1\)"),
        ({"masks": torch.zeros(4, 3, 7, 5)}, r"expected shape \(4, 3, 5, 7\), got \(4, 3, 7, 5\)"),
        ({"masks": [[{}] * 3] * 3 + [[{}]]}, r"expected frames a track \[3, 3, 3, 3\], got \[3, 3, 3, 1\]"),
    ],
)
def test_fields_must_fit_together(masks, change, message):
    fields = {
        "scores": torch.rand(4),
        "labels": torch.zeros(4, dtype=torch.int64),
        "masks": masks,
        "query_indices": torch.zeros(4, dtype=torch.int64),
        "size": (5, 7),
        "num_frames": 3,
    }
    with pytest.raises(ValueError, match=message):
        VideoInstances(**(fields | change))

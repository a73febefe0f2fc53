import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api

from vita_hf.ops.rle import encode_masks
from vita_hf.tracks.instances import VideoInstances


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
        ({"masks": [[{}] * 3] * 3 + [[{}]]}, r"expected frames per track \[3, 3, 3, 3\], got \[3, 3, 3, 1\]"),
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


def test_filter_by_name(instances):
    assert instances.filter(labels="cat").track_ids.tolist() == [0, 2]
    assert instances.filter(labels=["dog", 0]).track_ids.tolist() == [1, 3]
    assert instances.filter(labels=1).track_ids.tolist() == [3]
    with pytest.raises(ValueError, match=r"unknown class 'bird': the classes are cat, dog, person"):
        instances.filter(labels=["cat", "bird"])
    with pytest.raises(ValueError, match="unknown class 'Persons'; did you mean 'person'"):
        instances.filter(labels="Persons")
    with pytest.raises(ValueError, match="unknown class 3: the classes are"):
        instances.filter(labels=3)


def test_dense_and_run_lengths_are_the_same_tracks(instances, masks):
    assert instances.to_dense().masks.dtype == torch.bool
    torch.testing.assert_close(instances.to_dense().masks, masks)
    assert instances.to_rle().masks == [encode_masks(track) for track in masks]
    assert instances[[]].to_dense().masks.shape == (0, 3, 5, 7)
    assert instances.to_dense().to_rle().to_ytvis(1) == instances.to_ytvis(1)


def test_masks_at(instances, masks):
    for frame in range(-3, 3):
        got = instances.masks_at(frame)
        assert got.dtype == torch.bool
        torch.testing.assert_close(got, masks[:, frame])
    assert instances[[]].masks_at(0).shape == (0, 5, 7)
    for frame in (3, -4):
        with pytest.raises(IndexError, match=rf"frame {frame} is out of range: the video has 3 frames"):
            instances.masks_at(frame)


def make(masks, scores=None, **fields):
    """Instances with these masks (k, T, h, w), as RLE."""
    count = len(masks)
    return VideoInstances(
        scores=torch.linspace(0.9, 0.5, count) if scores is None else torch.tensor(scores),
        labels=torch.arange(count),
        masks=[encode_masks(track) for track in masks],
        query_indices=torch.arange(count),
        size=tuple(masks.shape[2:]),
        num_frames=masks.shape[1],
        **fields,
    )


def test_boxes_have_the_pixels_edges():
    masks = torch.zeros(2, 2, 6, 8, dtype=torch.bool)
    masks[0, 0, 2, 3] = True
    masks[0, 1, 1:4, 0:8] = True
    masks[1, 1, 0, 7] = masks[1, 1, 5, 2] = True  # two parts; their run in column order wraps around
    expected = [[[3, 2, 4, 3], [0, 1, 8, 4]], [[torch.nan] * 4, [2, 0, 8, 6]]]
    for instances in (make(masks), make(masks).to_dense()):
        torch.testing.assert_close(instances.boxes, torch.tensor(expected), equal_nan=True, rtol=0, atol=0)
        assert instances.areas.tolist() == [[1, 24], [0, 2]]
        assert instances[[]].boxes.shape == (0, 2, 4)
        assert instances[[]].areas.shape == (0, 2)


def test_hundreds_of_frames():
    # pycocotools counts masks in 8 bits in places.
    masks = torch.rand(2, 300, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.7
    instances = make(masks)
    torch.testing.assert_close(instances.areas, masks.sum((2, 3)))
    torch.testing.assert_close(instances.to_dense().masks, masks)
    first, last = masks[1, 299].nonzero().min(0).values.tolist(), masks[1, 299].nonzero().max(0).values.tolist()
    assert instances.boxes[1, 299].tolist() == [first[1], first[0], last[1] + 1, last[0] + 1]


def test_label_map_has_the_best_score_on_top():
    masks = torch.zeros(3, 1, 1, 5, dtype=torch.bool)
    masks[0, 0, 0, 0:3] = masks[1, 0, 0, 1:4] = masks[2, 0, 0, 2:4] = True
    instances = make(masks, [0.5, 0.9, 0.5], track_ids=torch.tensor([4, 0, 7]))
    for tracks, expected in [
        (instances, [4, 0, 0, 0, -1]),
        (instances[[0, 2]], [4, 4, 4, 7, -1]),  # equal scores: the first
        (instances[[2, 0]], [4, 4, 7, 7, -1]),
        (instances[[]], [-1] * 5),
    ]:
        got = tracks.label_map(0)
        assert (got.dtype, got.shape) == (torch.int64, (1, 5))
        assert got[0].tolist() == expected


def test_to_supervision_has_the_tracks_seen_in_the_frame(instances, masks):
    supervision = pytest.importorskip("supervision", reason="the supervision package is not installed")
    masks[1, 2] = False
    instances.masks = masks if isinstance(instances.masks, torch.Tensor) else [encode_masks(track) for track in masks]
    instances.track_ids = torch.tensor([5, 6, 7, 8])
    got = instances.to_supervision(2)
    assert isinstance(got, supervision.Detections)
    assert got.tracker_id.tolist() == [5, 7, 8]
    assert got.class_id.tolist() == [2, 2, 1]
    assert got.data["class_name"].tolist() == ["cat", "cat", "dog"]
    np.testing.assert_allclose(got.confidence, [0.9, 0.5, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(got.mask, masks[[0, 2, 3], 2].numpy())
    np.testing.assert_array_equal(got.xyxy, instances.boxes[[0, 2, 3], 2].numpy())
    assert got[got.confidence > 0.3].tracker_id.tolist() == [5, 7]
    empty = instances[[]].to_supervision(0)
    assert len(empty) == 0 and empty.mask.shape == (0, 5, 7)


def test_to_supervision_without_the_package(instances, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        instances.to_supervision(0)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 1], []])
def test_json_round_trip(instances, masks, tmp_path, rows):
    instances.scores = torch.tensor([0.9, 1 / 3, 1e-30, 0.1])
    instances.track_ids = torch.tensor([3, 1, 4, 15])
    instances.frame_indices, instances.fps = range(2, 11, 4), 30000 / 1001
    tracks = instances[rows]
    assert tracks.to_json(tmp_path / "deep" / "results.json") is None
    text = tracks.to_json()
    assert (tmp_path / "deep" / "results.json").read_text() == text
    for source in (text, str(tmp_path / "deep" / "results.json"), tmp_path / "deep" / "results.json"):
        got = VideoInstances.from_json(source)
        for name in ("scores", "labels", "query_indices", "track_ids"):
            torch.testing.assert_close(getattr(got, name), getattr(tracks, name), rtol=0, atol=0)
        assert (got.size, got.num_frames, got.id2label) == ((5, 7), 3, {0: "person", 1: "dog", 2: "cat"})
        assert (got.frame_indices, got.fps) == ([2, 6, 10], 30000 / 1001)
        np.testing.assert_array_equal(dense(got), masks[rows].numpy())
        assert got.to_json() == text
    instances.id2label = instances.frame_indices = instances.fps = None
    got = VideoInstances.from_json(instances.to_json())
    assert (got.id2label, got.frame_indices, got.fps) == (None, None, None)


def test_json_of_a_failed_write_is_not_there(instances, tmp_path, monkeypatch):
    instances.to_json(tmp_path / "results.json")
    before = (tmp_path / "results.json").read_text()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        instances[0].to_json(tmp_path / "results.json")
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == before
    instances.scores[1] = torch.nan
    with pytest.raises(ValueError, match=r"scores must be finite, got \[0\.8999.*, nan, "):
        instances.to_json(tmp_path / "results.json")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("format"), r'r\.json: expected an object with "format": "vita_hf.VideoInstances/1"'),
        (lambda c: c.pop("size"), r"r\.json: 'size' is missing"),
        (lambda c: c["tracks"][1].pop("score"), r"r\.json: 'score' is missing"),
        (lambda c: c["tracks"][1]["segmentations"].pop(), r"r\.json: masks: expected frames per track \[3, 3, 3, 3\]"),
        (
            lambda c: c["tracks"][2]["segmentations"][0].update(size=[7, 5]),
            r"r\.json: track 2: expected masks of size \(5, 7\), got \[\(7, 5\)\]",
        ),
        (lambda c: c.update(frame_indices=[0, 1]), r"r\.json: frame_indices: expected 3 frames, got 2"),
    ],
)
def test_json_that_is_not_a_result(instances, tmp_path, change, message):
    content = json.loads(instances.to_json())
    change(content)
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        VideoInstances.from_json(tmp_path / "r.json")


def test_json_that_is_none(tmp_path):
    (tmp_path / "r.json").write_text('{"format": "vita')
    with pytest.raises(ValueError, match=r"r\.json is not JSON: "):
        VideoInstances.from_json(tmp_path / "r.json")
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        VideoInstances.from_json(tmp_path / "missing.json")


NUMBER = "1" + "0" * 400


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"fps": null', '"fps": "abc"', "fps: expected a valid number, got 'abc'"),
        ('"fps": null', '"fps": 0', "fps: expected greater than 0, got 0"),
        ('"frame_indices": null', '"frame_indices": [0, 1, 10%s]' % ("0" * 30), r"frame_indices\[2\]: "),
        ('"id2label": null', '"id2label": []', r"id2label: expected an object, got \[\]"),
        ('"size": [1, 4]', '"size": [1.0, 4.0]', r"size\[0\]: expected a valid integer, got 1\.0"),
        ('"size": [1, 4]', '"size": [30000, 30000]', r"size: expected at most \d+ pixels, got 30000×30000"),
        ('"num_frames": 1', '"num_frames": 1000000000', "num_frames: expected less than or equal to 10000000"),
        ('"score": 0.5', f'"score": {NUMBER}', r"tracks\[0\]\.score: "),
        ('"score": 0.5', '"score": 1e39', r"tracks\[0\]\.score: expected less than or equal to 30000.*, got 1e\+39"),
        ('"score": 0.5', '"score": NaN', r"tracks\[0\]\.score: expected a finite number, got nan"),
        ('"label": 0', '"label": 0.5', r"tracks\[0\]\.label: expected a valid integer"),
        ('"label": 0', '"label": -1', r"tracks\[0\]\.label: expected greater than or equal to 0, got -1"),
        ('"label": 0', f'"label": {2**64 + 5}', r"tracks\[0\]\.label: expected less than 9223372036854775808"),
        ('"counts": "04"', '"counts": 5', r"tracks\[0\]\.segmentations\[0\]\.counts: expected a valid string, got 5"),
        ('"counts": "04"', '"counts": "05"', "track 0, frame 0: corrupt RLE: run lengths add up to 5, expected .* = 4"),
        (
            '"counts": "04"',
            '"counts": "013Z"',
            "track 0, frame 0: corrupt RLE: its counts end in the middle of a number",
        ),
        ('"counts": "04"', '"counts": "é"', "track 0, frame 0: corrupt RLE: character 'é' at position 0"),
        ('"counts": "04"', '"counts": ""', "track 0, frame 0: corrupt RLE: run lengths add up to 0"),
    ],
)
def test_json_with_a_hostile_value(tmp_path, old, new, message):
    """None of them may reach pycocotools, which writes beyond its memory for some."""
    text = make(torch.ones(1, 1, 1, 4, dtype=torch.bool), [0.5]).to_json()
    assert old in text
    (tmp_path / "r.json").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"r\.json: " + message):
        VideoInstances.from_json(tmp_path / "r.json")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"format": "\xe9"}', b"", b'{"format": "\\ud800"}'])
def test_bytes_that_are_not_json(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"r\.json is not JSON: "):
        VideoInstances.from_json(tmp_path / "r.json")


def test_json_with_a_byte_order_mark_and_names_in_any_script(tmp_path):
    text = make(torch.ones(1, 1, 1, 4, dtype=torch.bool), id2label={0: "猫"}).to_json().replace("\\u732b", "猫")
    (tmp_path / "r.json").write_text(text, encoding="utf-8-sig")
    assert VideoInstances.from_json(tmp_path / "r.json").label_names == ["猫"]


@pytest.mark.parametrize(
    "read", [lambda r: r.areas, lambda r: r.boxes, lambda r: r.to_dense(), lambda r: r.masks_at(0)]
)
def test_corrupt_masks_from_memory(read):
    """Whoever builds the class from RLEs of their own does without the checks of `from_json`."""
    instances = make(torch.ones(1, 1, 1, 4, dtype=torch.bool))
    instances.masks[0][0]["counts"] = "013Z"
    with pytest.raises(ValueError, match="corrupt RLE: its counts end in the middle of a number"):
        read(instances)


@pytest.mark.parametrize("indices", [[0, 2, 1], [0, 0, 1], [-1, 0, 1]])
def test_frame_indices_are_in_order(instances, indices):
    with pytest.raises(ValueError, match="frame_indices must be at least 0 and in increasing order"):
        dataclasses.replace(instances, frame_indices=indices)


def test_timestamps(instances):
    assert instances.timestamps is None
    instances.fps = 4
    assert instances.timestamps == [0, 0.25, 0.5]
    instances.frame_indices = [2, 6, 10]
    assert instances[0].timestamps == [0.5, 1.5, 2.5]


def test_summary():
    masks = torch.zeros(3, 4, 2, 2, dtype=torch.bool)
    masks[0, 1:3, 0, 0] = masks[2, 0] = masks[2, 3, 1, 1] = True
    instances = make(masks, [0.75, 0.5, 0.25], frame_indices=[0, 5, 10, 15], track_ids=torch.tensor([7, 8, 9]))
    names = ("track_id", "label", "score", "first_frame", "last_frame", "num_frames")
    rows = [(7, "0", 0.75, 5, 10, 2), (8, "1", 0.5, None, None, 0), (9, "2", 0.25, 0, 15, 2)]
    assert instances.summary() == [dict(zip(names, row)) for row in rows]
    assert json.loads(json.dumps(instances[1].summary())) == [dict(zip(names, rows[1]))]


def test_times_of_a_variable_frame_rate(tmp_path):
    times = [0.0, 0.02, 1.0]
    result = make(torch.ones(1, 3, 1, 4, dtype=torch.bool), [0.5])
    result = dataclasses.replace(result, frame_times=times, fps=2.9)
    assert result.timestamps == times and result[0].timestamps == times
    result.to_json(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text())
    assert (content["frame_times"], content["fps"]) == (times, 2.9)
    assert VideoInstances.from_json(tmp_path / "result.json").timestamps == times


def test_results_of_earlier_versions_have_no_times(tmp_path):
    result = dataclasses.replace(make(torch.ones(1, 3, 1, 4, dtype=torch.bool), [0.5]), fps=2.0)
    content = json.loads(result.to_json())
    del content["frame_times"]
    assert VideoInstances.from_json(json.dumps(content)).timestamps == [0, 0.5, 1]


@pytest.mark.parametrize(
    "times, message",
    [
        ([0.0, 1.0], "frame_times: expected 3 frames, got 2"),
        ([0.0, 2.0, 1.0], "frame_times must be finite, at least 0 and in increasing order"),
        ([-1.0, 0.0, 1.0], "frame_times must be finite, at least 0 and in increasing order"),
        ([0.0, 1.0, float("inf")], "frame_times must be finite, at least 0 and in increasing order"),
    ],
)
def test_wrong_times(times, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make(torch.ones(1, 3, 1, 4, dtype=torch.bool), [0.5]), frame_times=times)

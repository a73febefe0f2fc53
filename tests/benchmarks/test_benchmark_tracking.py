"""The baseline tracker of benchmarks/benchmark_tracking.py, on detections whose links are known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_api

import benchmark_tracking
from benchmark_tracking import Detections, link, to_results
from helpers.models import tiny_model
from vita_hf import VideoInstances, VitaVideoProcessor
from vita_hf.ops.rle import encode_masks

SIZE = (60, 80)  # a diagonal of 100 pixels


def frame(*objects: tuple[int, float, float, float]) -> Detections:
    """Squares of 5 pixels: (label, score, center's row, center's column)."""
    masks = torch.zeros(len(objects), 1, *SIZE, dtype=torch.bool)
    for mask, (_, _, y, x) in zip(masks, objects):
        mask[0, int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = True
    return make_detections([label for label, *_ in objects], [score for _, score, _, _ in objects], masks)


def make_detections(labels: list[int], scores: list[float], masks: torch.Tensor) -> Detections:
    labels, queries = torch.tensor(labels, dtype=torch.int64), torch.arange(len(labels))
    instances = VideoInstances(
        scores=torch.tensor(scores), labels=labels, masks=masks, query_indices=queries, size=SIZE, num_frames=1
    )
    return Detections.from_instances(instances)


def test_detections_have_centers_in_diagonals_and_no_empty_masks():
    detections = frame((0, 0.9, 30, 40), (1, 0.2, 100, 200))  # the second is outside
    assert detections.centers == pytest.approx(np.array([[0.3, 0.4]]))
    assert detections.labels.tolist() == [0] and mask_api.area(detections.masks[0]) == 25
    assert len(detections.above(0.95).labels) == 0


def test_crossing_objects_of_different_class_stay_apart():
    frames = [frame((0, 0.9, 30, 10 + 10 * t), (1, 0.9, 30, 60 - 10 * t)) for t in range(6)]
    assert link(frames, limit=0.15, gap=0) == [[(t, 0) for t in range(6)], [(t, 1) for t in range(6)]]


def test_crossing_objects_of_one_class_swap():
    """The nearest centers mislead where two objects of one class pass within half a step of each other."""
    frames = [frame((0, 0.9, 30, 15 + 10 * t), (0, 0.9, 30, 65 - 10 * t)) for t in range(6)]
    first, second = link(frames, limit=0.15, gap=0)
    assert first == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    assert second == [(0, 1), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0)]


def test_links_minimize_the_total_distance():
    """The detection nearest to the first track is the only one within the limit of the second."""
    frames = [frame((0, 0.9, 30, 20), (0, 0.9, 30, 32)), frame((0, 0.9, 30, 27), (0, 0.9, 30, 12))]
    assert link(frames, limit=0.1, gap=0) == [[(0, 0), (1, 1)], [(0, 1), (1, 0)]]


@pytest.mark.parametrize("gap, tracks", [(1, 2), (2, 1)])
def test_tracks_survive_gaps_up_to_the_limit(gap, tracks):
    frames = [frame((0, 0.9, 30, 20)), frame(), frame(), frame((0, 0.9, 30, 24))]
    assert len(link(frames, limit=0.05, gap=gap)) == tracks


def test_distance_limit_is_in_diagonals():
    frames = [frame((0, 0.9, 30, 20)), frame((0, 0.9, 30, 30))]
    assert len(link(frames, limit=0.101, gap=0)) == 1
    assert len(link(frames, limit=0.099, gap=0)) == 2


def test_scores_masks_and_order_of_predictions():
    frames = [frame((0, 0.9, 30, 20)), frame((1, 0.6, 10, 70), (0, 0.7, 30, 21)), frame((1, 0.6, 10, 70)), frame()]
    tracks = link(frames, limit=0.05, gap=0)
    seen = to_results(frames, tracks, 7, {0: 3, 1: 5}, count_unseen=False, top_k=10)
    assert [(r["video_id"], r["category_id"]) for r in seen] == [(7, 3), (7, 5)]
    assert [r["score"] for r in seen] == pytest.approx([0.8, 0.6])
    assert [m is None for m in seen[0]["segmentations"]] == [False, False, True, True]
    assert seen[1]["segmentations"][2] == frames[2].masks[0]
    everywhere = to_results(frames, tracks, 7, {0: 3, 1: 5}, count_unseen=True, top_k=1)
    assert [r["score"] for r in everywhere] == pytest.approx([1.6 / 4])


@pytest.fixture
def split(tmp_path):
    """Two videos of three frames, each with an object that stands still."""
    square = torch.zeros(1, *SIZE, dtype=torch.bool)
    square[0, 10:40, 10:40] = True
    rle = encode_masks(square)[0]
    videos, annotations = [], []
    for video in (1, 2):
        names = [f"{video}/{t}.jpg" for t in range(3)]
        (tmp_path / str(video)).mkdir()
        for name in names:
            Image.new("RGB", SIZE[::-1], (90 * video, 30, 60)).save(tmp_path / name)
        videos.append({"id": video, "height": 60, "width": 80, "length": 3, "file_names": names})
        entry = {"id": video, "video_id": video, "category_id": video, "iscrowd": 0, "segmentations": [rle] * 3}
        annotations.append({**entry, "bboxes": [[10, 10, 30, 30]] * 3, "areas": [900] * 3})
    categories = [{"id": i + 1, "name": f"class {i}"} for i in range(7)]
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"videos": videos, "annotations": annotations, "categories": categories}))
    return path


def test_links_of_a_perfect_detector_have_an_ap_of_one(split, tmp_path, monkeypatch, capsys):
    """The whole script, with an untrained model and a detector that knows the ground truth."""
    tiny_model().save_pretrained(tmp_path / "model")
    VitaVideoProcessor(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(tmp_path / "model")
    masks = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    masks[..., 10:40, 10:40] = True

    def perfect(model, processor, clip):
        return [make_detections([clip.id - 1], [0.9], masks)] * 3

    arguments = ["--model", str(tmp_path / "model"), "--annotations", str(split), "--images", str(tmp_path)]
    real = benchmark_tracking.main([*arguments, "--json", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == real
    names = list(benchmark_tracking.BASELINES.values())
    assert all(0 <= real["baselines"][name]["scores"]["AP"] < 1 for name in names) and real["videos"] == 2
    monkeypatch.setattr(benchmark_tracking, "detect", perfect)
    report = benchmark_tracking.main(arguments)
    for name in names:
        assert [report["baselines"][name]["scores"][key] for key in ("AP", "AR1")] == pytest.approx([1, 1])
    assert report["vita"] == real["vita"]
    assert f"| VITA's lead | {report['vita']['AP'] - 1:.4f} |" in capsys.readouterr().out


def test_detections_are_the_detectors_own_predictions(split, tmp_path):
    """Compare with the model's auxiliary outputs: best class of each query, mask score, sign of the logits."""
    model = tiny_model()
    processor = VitaVideoProcessor(size={"shortest_edge": 60, "longest_edge": 128})
    clip = benchmark_tracking.read_split(split, tmp_path).clips[0]
    frames = list(benchmark_tracking.detect(model, processor, clip))
    inputs = processor([clip.frames], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, output_auxiliary_logits=True).auxiliary_logits[-1]
    assert len(frames) == 3
    for t, detections in enumerate(frames):
        probabilities, labels = outputs["class_queries_logits"][0, t].softmax(-1)[:, :-1].max(-1)
        logits = outputs["masks_queries_logits"][0, t][None]
        logits = torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        logits = logits[0, :, :60, :80]
        inside = logits > 0
        quality = (logits.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
        expected = {
            (label.item(), round(score.item(), 4), int(mask.sum()))
            for label, score, mask in zip(labels, probabilities * quality, inside)
            if score >= 0.05 and mask.any()
        }
        got = {
            (int(label), round(float(score), 4), int(mask_api.area(mask)))
            for label, score, mask in zip(detections.labels, detections.scores, detections.masks)
        }
        assert got == expected and got

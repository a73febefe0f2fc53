import json
import logging
import pickle
import random
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from helpers.annotation_files import compressed, uncompressed
from helpers.metric_reference import plain_metric, random_case, to_dense
from helpers.scoring_cases import score, square, tiny
from vita_hf.scoring import VisEvaluator, reports
from vita_hf.scoring.average_precision import FILTERS, describe_objects, match, score_category

# pycocotools' own, with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GOLDEN = Path(__file__).parents[1] / "golden" / "eval"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def flatten(result):
    return {**{k: v for k, v in result.items() if k != "per_category"}, **result["per_category"]}


# ---------------------------------------------------------------- equal to the reference implementation
@pytest.mark.parametrize("name", ["pred0", "pred1", "pred2"])
def test_golden(name, kernels):
    expected = EXPECTED["sets"][name]
    evaluator = VisEvaluator(GOLDEN / "gt.json")
    evaluator.add(GOLDEN / f"{name}.json")
    result = evaluator.compute()
    assert EXPECTED["stat_names"] == NUMBERS
    assert [result[key] for key in NUMBERS] == pytest.approx(expected["stats"], abs=1e-9)
    table = {str(row["id"]): row for row in evaluator.category_table()}
    for key in ("AP", "AP50", "AR10"):
        assert {c: row[key] for c, row in table.items()} == pytest.approx(expected[f"per_category_{key}"], abs=1e-9)
    by_name = {f"c{category}": value for category, value in expected["per_category_AP"].items()}
    assert result["per_category"] == pytest.approx(by_name, abs=1e-9)
    assert list(result) == [*NUMBERS, "per_category"]
    for key, table in expected["ious_video_category"].items():
        ious = evaluator.ious(*map(int, key.split(",")))
        assert np.abs(ious - np.reshape(table, ious.shape)).max(initial=0) <= 1e-12, key


def test_equal_scores_in_different_videos_are_ranked_by_video_id():
    """As in the official scorers, whichever order the file, the predictions or the calls have."""
    for hit, ap in ((1, 1.0), (2, 0.5)):
        content, (first, second) = tiny(num_videos=2)
        content["videos"].reverse()
        del content["annotations"][2 - hit]
        for order in ([first, second], [second, first]):
            evaluator = VisEvaluator(content)
            for prediction in order:
                evaluator.add(prediction)
            assert evaluator.compute()["AP"] == score(content, order)["AP"] == pytest.approx(ap)


# ---------------------------------------------------------------- equal to the definition
@cache
def scored_case(seed):
    """A random case with the numbers and IoU tables that the definition gives for it."""
    case = random_case(seed)
    return *case, *plain_metric(*case)


@pytest.mark.parametrize("start", range(0, 200, 20))
def test_random_cases(start, kernels):
    for seed in range(start, start + 20):
        content, predictions, expected, tables = scored_case(seed)
        evaluator = VisEvaluator(content)
        evaluator.add(predictions)
        result = evaluator.compute()
        assert flatten(result) == pytest.approx(flatten(expected), abs=1e-9), seed
        for key, table in tables.items():
            assert np.abs(evaluator.ious(*key) - table).max(initial=0) <= 1e-12, (seed, key)


def test_random_cases_are_not_trivial():
    cases = [scored_case(seed) for seed in range(200)]
    annotations = [a for content, *_ in cases for a in content["annotations"]]
    forms = [s for a in annotations for s in a["segmentations"]]
    assert any(not predictions for _, predictions, *_ in cases) and any(not c["annotations"] for c, *_ in cases)
    assert any(a.get("iscrowd") for a in annotations) and any("iscrowd" not in a for a in annotations)
    assert any("areas" in a for a in annotations) and any("areas" not in a for a in annotations)
    assert sum("occlusion" in a for a in annotations) > 50
    assert sum(isinstance(s, list) for s in forms) > 50 and sum(s is None for s in forms) > 50
    assert sum(isinstance(s, dict) and isinstance(s["counts"], list) for s in forms) > 50
    assert any(128**2 in (a.get("areas") or []) for a in annotations)
    assert any(256**2 in (a.get("areas") or []) for a in annotations)
    aps = [expected["AP"] for _, _, expected, _ in cases[:40]]
    assert min(aps) == -1 and sum(0 < ap < 1 for ap in aps) > 20


def test_more_than_100_predictions_of_a_category():
    content, (best,) = tiny()
    others = [
        dict(best, score=0.1 + i / 1000, segmentations=[None, compressed(square(at=7 + i % 4))]) for i in range(150)
    ]
    predictions = [*others[:75], dict(best, score=0.05), *others[75:]]
    assert score(content, predictions)["AR100"] == 0
    predictions[75] = dict(best, score=0.2)
    expected, _ = plain_metric(content, predictions)
    assert flatten(score(content, predictions)) == pytest.approx(flatten(expected), abs=1e-9)
    assert expected["AR100"] == 1 and expected["AR10"] == 0
    # The same in several calls: what was cut before must not come back, what comes later may replace it.
    evaluator = VisEvaluator(content)
    for index in range(0, len(predictions), 40):
        evaluator.add(predictions[index : index + 40])
    assert evaluator.compute() == score(content, predictions)
    assert evaluator.ious(1, 1).shape == (100, 1)


def test_area_bounds_are_inclusive_at_both_ends():
    for area, names in ((128**2, "sm"), (256**2, "ml"), (128**2 - 1, "s"), (256**2 + 1, "l")):
        content, predictions = tiny(areas=[area, area])
        result = score(content, predictions)
        assert {name: result[f"AP{name}"] for name in "sml"} == {
            name: pytest.approx(1) if name in names else -1 for name in "sml"
        }


def test_areas_of_the_file_count_for_objects_and_mask_areas_for_predictions():
    content, predictions = tiny(areas=[None, 300**2])
    predictions.append(dict(predictions[0], score=0.95, segmentations=[None, compressed(square(at=10))]))
    result = score(content, predictions)
    assert result["APl"] == pytest.approx(1)  # the small false positive does not count among the large
    assert result["AP"] == pytest.approx(0.5)
    assert result["APs"] == -1


def test_crowds_are_matched_again_and_again_with_the_ordinary_iou():
    content, (first,) = tiny(iscrowd=1)
    content["annotations"].append(dict(content["annotations"][0], id=2, category_id=2, iscrowd=0))
    second = dict(first, category_id=2)
    part = [compressed(square(side=5)), None]  # inside the crowd: COCO's crowd IoU would be 1
    predictions = [first, dict(first, score=0.8), dict(second, score=0.7)]
    assert score(content, predictions)["AP"] == pytest.approx(1)
    assert score(content, predictions)["per_category"]["cat"] == -1
    content["annotations"].append(dict(content["annotations"][0], id=3, segmentations=[None, compressed(square(at=9))]))
    content["annotations"][-1]["iscrowd"] = 0
    free = dict(first, segmentations=[None, compressed(square(at=9))], score=0.1)
    with_crowd_hits = score(content, [*predictions, free])["per_category"]["cat"]
    with_false_positive = score(content, [*predictions, free, dict(first, segmentations=part)])["per_category"]["cat"]
    assert with_crowd_hits == pytest.approx(1) and with_false_positive == pytest.approx(0.5)


def test_at_equal_iou_the_later_object_is_taken():
    objects = describe_objects([100, 100, 100], [0, 0, 0], [False, False, True])
    matched, to_ignored = match(np.array([[0.6, 0.6, 0.9], [0.6, 0.0, 0.0], [0.0, 0.0, 0.96]]), objects)
    # First prediction: object 1 up to 0.6, above only the crowd. Second: object 0, still free. Third: the crowd again.
    assert matched[0, :, 0].tolist() == [True] * 9 + [False]
    assert to_ignored[0, :, 0].tolist() == [False] * 3 + [True] * 6 + [False]
    assert matched[0, :, 1].tolist() == [True] * 3 + [False] * 7
    assert matched[0, :, 2].all() and to_ignored[0, :, 2].all()
    # Among the large there is no object that counts: all are ignored, the best free one is taken.
    large = FILTERS.index("large")
    assert to_ignored[large, :, 0].tolist() == [True] * 9 + [False]


def test_occlusion_levels():
    words = {"n": "no_occlusion", "s": "slight_occlusion", "v": "severe_occlusion", "-": None}
    # Mean of the top half (rounded up) of the visible frames' scores.
    for text, levels in (
        ("nnnn", ["slight"]),
        ("ssnn", ["slight", "moderate"]),
        ("vvv-", ["heavy"]),
        ("vnnn", ["moderate"]),
        ("vsn-", ["moderate", "heavy"]),
        ("----", []),
    ):
        content, predictions = tiny()
        masks = [compressed(square())] * 4
        content["videos"][0]["length"] = 4
        content["annotations"][0].update(segmentations=masks, occlusion=[words[c] for c in text])
        second = dict(content["annotations"][0], id=2, category_id=2, occlusion=["severe_occlusion"] * 4)
        content["annotations"].append(second)
        predictions[0]["segmentations"] = masks
        result = score(content, predictions)
        found = {name for name in ("slight", "moderate") if result[f"AP_{name}"] == pytest.approx(1)}
        assert found == set(levels) - {"heavy"}, text
        assert result["AP_heavy"] == pytest.approx(0.5 if "heavy" in levels else 0), text
    assert "AP_heavy" not in score(*tiny())


def test_occlusion_filters_leave_predictions_alone():
    content, predictions = tiny(occlusion=["severe_occlusion", None])
    wrong = dict(predictions[0], score=0.95, segmentations=[None, compressed(square(at=10))])
    result = score(content, [*predictions, wrong])
    assert result["AP_heavy"] == pytest.approx(0.5) and result["AP_slight"] == -1


# ---------------------------------------------------------------- special inputs
def test_no_predictions_and_no_objects():
    content, predictions = tiny()
    nothing = score(content, [])
    assert [nothing[key] for key in NUMBERS] == [0, 0, 0, 0, -1, -1, 0, 0, 0, 0, -1, -1]
    assert nothing["per_category"] == {"cat": 0, "dog": -1}
    content["annotations"] = []
    assert set(flatten(score(content, predictions)).values()) == {-1.0}


def test_empty_masks_have_iou_zero():
    content, predictions = tiny()
    empty = compressed(np.zeros((20, 20)))
    content["annotations"][0]["segmentations"] = [None, empty]
    predictions[0]["segmentations"] = [empty, None]
    evaluator = VisEvaluator(content)
    evaluator.add(predictions)
    assert evaluator.ious(1, 1).tolist() == [[0.0]]
    assert evaluator.compute()["AP"] == 0


def test_annotations_alone_are_enough():
    content, predictions = tiny(num_videos=2)
    elsewhere = dict(predictions[0], video_id=7, score=0.99)  # a video without objects: wrong all the same
    result = score(content["annotations"], [*predictions, elsewhere])
    assert list(result["per_category"]) == ["1"]
    content["videos"].append({"id": 7, "height": 20, "width": 20, "length": 2})
    expected = score(content, [*predictions, elsewhere])
    assert [result[key] for key in NUMBERS] == [expected[key] for key in NUMBERS]
    assert 0.5 < result["AP"] < 1


def test_references_are_not_changed():
    content, predictions = random_case(1)
    before = pickle.dumps((content, predictions))
    score(content, predictions)
    assert pickle.dumps((content, predictions)) == before


def test_forms_of_predictions():
    content, predictions = tiny()
    masks = [square(), square(at=3)]
    forms = [
        [uncompressed(mask) for mask in masks],
        [uncompressed(masks[0]), compressed(masks[1])],
        [{"size": (20, 20), "counts": compressed(mask)["counts"].encode()} for mask in masks],
    ]
    for form in forms:
        assert score(content, [dict(predictions[0], segmentations=form)])["AP"] == pytest.approx(1)
    shared = [dict(predictions[0], category_id=c, score=np.float32(s)) for c, s in ((1, 0.3), (2, 0.5), (1, 0.2))]
    assert score(content, shared)["AP"] == pytest.approx(1)


def test_categories_of_one_name_are_told_apart():
    content, predictions = tiny()
    content["categories"][1]["name"] = "cat"
    assert list(score(content, predictions)["per_category"]) == ["cat (1)", "cat (2)"]


# ---------------------------------------------------------------- masks
def test_long_videos_exceed_32_bits(kernels):
    """600 frames of 2160×3840 have 5·10⁹ pixels."""
    height, width, length = 2160, 3840, 600
    full = {"size": [height, width], "counts": [0, height * width]}
    half = {"size": [height, width], "counts": [0, height * width // 2, height * width // 2]}
    content = [{"id": 1, "video_id": 1, "category_id": 1, "segmentations": [half] * length}]
    evaluator = VisEvaluator(content)
    evaluator.add({"video_id": 1, "category_id": 1, "score": 1, "segmentations": [full] * (length - 1) + [None]})
    assert evaluator.ious(1, 1).item() == pytest.approx(0.5 * 599 / 599.5, abs=1e-12)


def test_polygons_are_read_as_pycocotools_does():
    polygons = [[1.5, 2.0, 15.0, 3.5, 9.0, 18.0], [10.0, 10.0, 19.0, 10.0, 19.0, 19.0]]
    content, predictions = tiny()
    content["annotations"][0]["segmentations"] = [polygons, None]
    predictions[0]["segmentations"] = [compressed(to_dense(polygons, 20, 20)), None]
    assert score(content, predictions)["AP"] == pytest.approx(1)
    assert to_dense(polygons, 20, 20).sum() > 100


# ---------------------------------------------------------------- several processes
def test_states_merge_to_the_same_digits_in_any_order():
    content = GOLDEN / "gt.json"
    predictions = json.loads((GOLDEN / "pred2.json").read_text())
    for entry in predictions:
        entry["score"] = round(entry["score"], 1)  # ties in and between videos
    whole = VisEvaluator(content)
    whole.add(predictions)
    expected = whole.compute()
    videos = sorted({entry["video_id"] for entry in predictions})
    rng = random.Random(0)
    for count in (2, 3, 5):
        rng.shuffle(videos)
        states = []
        for process in range(count):
            mine = VisEvaluator(content)
            # The last video of one process again in the next, as samplers do to fill the last batch.
            part = {*videos[process::count], videos[(process + count - 1) % count]}
            for video in rng.sample(sorted(part), len(part)):
                mine.add([entry for entry in predictions if entry["video_id"] == video])
            states.append(pickle.loads(pickle.dumps(mine.state())))
        rng.shuffle(states)
        merged = VisEvaluator(content).merge(states)
        assert merged.compute() == expected
        assert merged.state()["videos"].keys() == whole.state()["videos"].keys()
        assert merged.num_predictions == whole.num_predictions


def test_merging_is_checked():
    content, predictions = tiny(num_videos=2)
    first, second = VisEvaluator(content), VisEvaluator(content)
    first.add(predictions)
    second.add(dict(predictions[1], score=0.3))
    with pytest.raises(ValueError, match=r"video 2 has different predictions in two states"):
        first.merge(second.state())
    first.merge([first.state(), first.state()])
    assert first.num_predictions == 2
    other, _ = tiny(num_videos=3)
    with pytest.raises(ValueError, match="states of different annotations cannot be merged"):
        VisEvaluator(other).merge([first.state()])


def test_state_is_small():
    content, predictions = tiny()
    predictions[0]["segmentations"] = [compressed(np.random.default_rng(0).random((20, 20)) < 0.5)] * 2
    evaluator = VisEvaluator(content)
    evaluator.add([dict(predictions[0], score=i / 100) for i in range(100)])
    assert len(pickle.dumps(evaluator.state())) < 5000


SCRIPT = """
import json, pickle, sys
from vita_hf.scoring import VisEvaluator, reports
assert "evaluate" not in sys.modules
evaluator = VisEvaluator(sys.argv[1])
rank, count = int(sys.argv[3]), int(sys.argv[4])
predictions = json.load(open(sys.argv[2]))
videos = sorted({entry["video_id"] for entry in predictions})[rank::count]
for video in reversed(videos):
    evaluator.add([entry for entry in predictions if entry["video_id"] == video])
pickle.dump(evaluator.state(), sys.stdout.buffer)
"""


def test_two_real_processes():
    files = [str(GOLDEN / "gt.json"), str(GOLDEN / "pred1.json")]
    commands = [[sys.executable, "-c", SCRIPT, *files, str(rank), "2"] for rank in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    states = [pickle.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(state["videos"] for state in states)
    assert VisEvaluator(files[0]).merge(states[::-1]).compute() == score(*files)


# ---------------------------------------------------------------- tables and warnings
def test_tables():
    content, predictions = tiny(num_videos=3)
    content["annotations"][1]["iscrowd"] = 1
    shifted = [compressed(square(at=1)), compressed(square(at=4))]
    evaluator = VisEvaluator(content)
    evaluator.add([predictions[0], dict(predictions[2], segmentations=shifted)])
    rows = evaluator.video_table()
    assert [row["id"] for row in rows] == [3, 1, 2]
    assert [row["objects"] for row in rows] == [1, 1, 0]
    assert [row["predictions"] for row in rows] == [1, 1, 0]
    assert [row["AP"] for row in rows] == pytest.approx([0.7, 1, -1])  # IoU 9/11: 7 of 10 thresholds
    assert [row["mean_best_iou"] for row in rows] == pytest.approx([9 / 11, 1, -1])
    cat, dog = evaluator.category_table()
    assert (cat["name"], cat["objects"], cat["predictions"]) == ("cat", 2, 2)
    assert (dog["name"], dog["objects"], dog["predictions"], dog["AP"]) == ("dog", 0, 0, -1)
    assert cat["AP50"] == pytest.approx(1) and cat["AR1"] == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: [], "there are no predictions"),
        (lambda p: [dict(p[0], segmentations=[None, None])], "the masks of all 1 predictions are empty"),
        (
            lambda p: [dict(p[0], video_id=2)],
            "no prediction is in a video with annotated objects: predictions are in videos 2",
        ),
        (lambda p: [dict(p[0], category_id=2)], r"predicted are categories 2, annotated 1 \(labels counted from 0"),
        (
            lambda p: [dict(p[0], segmentations=[compressed(square(at=9)), None])],
            r"the best overlap .* is 0\.0\d\d, below 0\.5",
        ),
    ],
)
def test_zero_is_explained(change, message, caplog):
    content, predictions = tiny()
    content["videos"].append({"id": 2, "height": 20, "width": 20, "length": 2})
    with caplog.at_level(logging.WARNING):
        assert score(content, change(predictions))["AP"] == 0
    assert len(caplog.records) == 1
    assert re.match("AP is 0: .*" + message, caplog.records[0].getMessage())


def test_nothing_to_find_is_explained_and_a_score_is_not(caplog):
    content, predictions = tiny(iscrowd=1)
    score(content, predictions)
    assert "AP is -1: the annotations have no objects to find" in caplog.text
    caplog.clear()
    score(*tiny())
    assert not caplog.records


def test_repeated_predictions_are_named_and_scored(caplog):
    content, predictions = tiny()
    assert score(content, [predictions[0], dict(predictions[0])])["AP"] == pytest.approx(1)
    assert "1 predictions repeat an earlier one" in caplog.text and "predictions[1] (video 1)" in caplog.text
    caplog.clear()
    evaluator = VisEvaluator(content)
    evaluator.add(predictions)
    evaluator.add(predictions)  # the same video twice
    assert "predictions[0] (video 1)" in caplog.text
    caplog.clear()
    empty = dict(predictions[0], segmentations=[None, None])
    score(content, [predictions[0], empty, empty, dict(predictions[0], score=0.1)])
    assert not caplog.records


def test_the_table_of_videos_scores_only_their_own_categories(monkeypatch):
    """With all categories for each video, long lists of both would take hours."""
    mask = {"size": [2, 2], "counts": [0, 2, 2]}
    entries = [{"video_id": key, "category_id": key, "segmentations": [mask]} for key in range(1, 6)]
    evaluator = VisEvaluator(
        {
            "videos": [{"id": key, "height": 2, "width": 2, "length": 1} for key in range(1, 6)],
            "categories": [{"id": key, "name": str(key)} for key in range(1, 101)],
            "annotations": [{**entry, "id": key} for key, entry in enumerate(entries, 1)],
        }
    )
    evaluator.add([{**entry, "score": 0.5} for entry in entries])
    scored = []
    monkeypatch.setattr(reports, "score_category", lambda pairs: scored.append(1) or score_category(pairs))
    assert [row["AP"] for row in evaluator.video_table()] == pytest.approx([1] * 5)
    assert len(scored) == 5

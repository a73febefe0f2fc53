"""A test for every message: what was wrong with which entry, and what was expected."""

import json
import math
import re

import numpy as np
import pytest

from helpers.annotation_files import compressed, uncompressed
from helpers.scoring_cases import score, square, tiny
from vita_hf.scoring import InvalidInputError, VisEvaluator


def problems_of(references, predictions=()):
    with pytest.raises(InvalidInputError) as caught:
        score(references, list(predictions))
    return [str(problem) for problem in caught.value.problems]


def cut(text):
    return {"size": [20, 20], "counts": text}


GOOD = compressed(square())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": 9}, "`video_id` 9 is not in the annotation file, expected one of 1, 2"),
        ({"video_id": None}, "`video_id` None is not in the annotation file, expected one of 1, 2"),
        ({"video_id": [1]}, "`video_id` [1] is not in the annotation file, expected one of 1, 2"),
        ({"category_id": 0}, "`category_id` 0 is not in the annotation file, expected one of 1, 2"),
        ({"category_id": "cat"}, "`category_id` 'cat' is not in the annotation file, expected one of 1, 2"),
        ({"score": math.nan}, "`score` is nan, expected a finite number"),
        ({"score": np.float32("inf")}, "`score` is np.float32(inf), expected a finite number"),
        ({"score": None}, "`score` is None, expected a finite number"),
        ({"score": "high"}, "`score` is 'high', expected a finite number"),
        ({"segmentations": [GOOD]}, "`segmentations` has 1 entries, the video 2 frames"),
        ({"segmentations": GOOD}, "`segmentations`: expected a list with one entry for each frame, got {'size'"),
        (
            {"segmentations": [None, {"size": [10, 40], "counts": GOOD["counts"]}]},
            "frame 1: the RLE has size [10, 40], the video [height, width] = [20, 20]",
        ),
        (
            {"segmentations": [3, None]},
            "frame 0: expected null, an RLE with `size` and `counts`, or a list of polygons",
        ),
        ({"segmentations": [{}, None]}, "frame 0: expected null, an RLE with `size` and `counts`"),
        (
            {"segmentations": [None, cut(7)]},
            "frame 1: RLE counts must be a string, bytes or a list of run lengths, got int",
        ),
        (
            {"segmentations": [None, cut(GOOD["counts"] + "1")]},
            "frame 1: corrupt RLE: run lengths add up to 411, expected height·width = 400",
        ),
        (
            {"segmentations": [None, cut(GOOD["counts"][:-1])]},
            "frame 1: corrupt RLE: its counts end in the middle of a number (cut off?)",
        ),
        ({"segmentations": [None, cut("")]}, "frame 1: corrupt RLE: run lengths add up to 0, expected"),
        ({"segmentations": [None, cut("0`")]}, "frame 1: corrupt RLE: its counts end in the middle of a number"),
        (
            {"segmentations": [None, cut("0\x7f")]},
            "frame 1: corrupt RLE: character '\\x7f' at position 1 of its counts is not part of the format",
        ),
        ({"segmentations": [None, cut("0é")]}, "frame 1: corrupt RLE: character 'é' at position 1"),
        ({"segmentations": [None, cut("0!")]}, "frame 1: corrupt RLE: character '!' at position 1"),
        ({"segmentations": [None, cut(b"0\xff")]}, "frame 1: corrupt RLE: character 'ÿ' at position 1"),
        (
            {"segmentations": [None, cut("PPPPPPPP0")]},
            "frame 1: corrupt RLE: a number of more than 6 digits at position 6",
        ),
        ({"segmentations": [None, cut("J0")]}, "frame 1: corrupt RLE: run 0 has the negative length -6"),
        ({"segmentations": [None, cut([5, 5])]}, "frame 1: corrupt RLE: run lengths add up to 10, expected"),
        ({"segmentations": [None, cut([])]}, "frame 1: corrupt RLE: run lengths add up to 0, expected"),
        ({"segmentations": [None, cut([500, -100])]}, "frame 1: corrupt RLE: run 1 has the negative length -100"),
        ({"segmentations": [None, cut([0, 400.0])]}, "frame 1: corrupt RLE: run lengths must be integers, got 400.0"),
        ({"segmentations": [None, cut([0, 2**70])]}, "frame 1: corrupt RLE: run lengths add up to"),
        (
            {"segmentations": [[[0, 0, 5, 5]], None]},
            "frame 0: polygon 0: expected at least three points [x0, y0, …] of finite numbers, got [0, 0, 5, 5]",
        ),
        ({"segmentations": [[0, 0, 5, 5, 5, 0], None]}, "frame 0: polygon 0: expected at least three points"),
    ],
)
def test_predictions(change, message):
    content, (first, second) = tiny(num_videos=2)
    wrong = {**second, **change}
    (problem,) = problems_of(content, [first, wrong])
    video = "" if wrong["video_id"] is None else f" (video {wrong['video_id']})"
    assert problem.startswith(f"predictions[1]{video}")
    assert message in problem


def test_predictions_of_another_shape():
    content, (prediction,) = tiny()
    assert problems_of(content, [7]) == ["predictions[0]: expected an object, got 7"]
    for key in prediction:
        (problem,) = problems_of(content, [{k: v for k, v in prediction.items() if k != key}])
        assert problem.endswith(f": it has no '{key}'")
    with pytest.raises(InvalidInputError, match="expected a list of predictions, got 3"):
        VisEvaluator(content).add(3)


def test_all_problems_are_listed_and_nothing_is_scored(caplog):
    content, predictions = tiny(num_videos=2)
    evaluator = VisEvaluator(content)
    wrong = [dict(predictions[0], score=math.nan) for _ in range(30)]
    wrong.append(dict(predictions[1], segmentations=[cut("0`"), cut("!")]))
    wrong.append(dict(predictions[1], segmentations=[cut([1]), None], score=0.2))
    with pytest.raises(ValueError) as caught:
        evaluator.add([*predictions, *wrong])
    assert len(caught.value.problems) == 33
    lines = str(caught.value).splitlines()
    assert lines[0] == "predictions[2] (video 1): `score` is nan, expected a finite number"
    assert lines[-1] == "… and 13 more" and len(lines) == 21
    assert evaluator.num_predictions == 0 and evaluator.compute()["AP"] == 0
    evaluator.add(predictions)
    assert evaluator.compute()["AP"] == pytest.approx(1)


def test_one_bad_mask_among_many_is_found():
    content, (prediction,) = tiny()
    rng = np.random.default_rng(0)
    masks = [[compressed(rng.random((20, 20)) < 0.5) for _ in range(2)] for _ in range(300)]
    predictions = [dict(prediction, segmentations=m, score=i / 300) for i, m in enumerate(masks)]
    predictions[211]["segmentations"][1]["counts"] += "1"
    (problem,) = problems_of(content, predictions)
    assert problem.startswith("predictions[211] (video 1), frame 1: corrupt RLE: run lengths add up to ")


def update(**values):
    return lambda content: content["annotations"][1].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (update(id=0), "annotations[1] (video 2, annotation 0): id 0 is read as 'unmatched' by the official scorers"),
        (update(id=1), "annotations[1] (video 2, annotation 1): an earlier annotation has the same id"),
        (update(id=[]), "`id`: expected an integer, got []"),
        (update(video_id=5), "annotations[1] (video 5, annotation 2): the file has no video with this id"),
        (
            update(category_id=7),
            "annotations[1] (video 2, annotation 2): `category_id` 7: expected one of 1, 2",
        ),
        (update(segmentations=None), "`segmentations`: expected a list with one entry for each frame, got None"),
        (update(segmentations=[GOOD] * 3), "`segmentations` has 3 entries, expected one for each of the 2 frames"),
        (update(areas=[1]), "`areas` has 1 entries, expected one for each of the 2 frames"),
        (update(areas=[1, "x"]), "`areas`: expected numbers >= 0 or null, got 'x'"),
        (update(areas=[1, math.nan]), "`areas`: expected numbers >= 0 or null, got nan"),
        (update(iscrowd=2), "`iscrowd`: expected 0 or 1, got 2"),
        (
            update(occlusion=["heavy", None]),
            "`occlusion`: expected one of no_occlusion, slight_occlusion, severe_occlusion",
        ),
        (update(segmentations=[None, cut([1, 2])]), "frame 1: corrupt RLE: run lengths add up to 3, expected"),
        (update(segmentations=[[[0, 0, 1]], GOOD]), "frame 0: polygon 0: expected at least three points"),
        (lambda c: c["annotations"].append(4), "annotations[2]: expected an object, got 4"),
        (
            lambda c: c.update(annotations=None),
            "it has no `annotations`. The official validation and test files carry none",
        ),
        (lambda c: c.pop("annotations"), "hold out videos of the training file"),
        (lambda c: c.update(annotations={}), "`annotations`: expected a list, got {}"),
        (lambda c: c.update(videos=[]), "`videos`: expected a list of at least one, got []"),
        (lambda c: c.pop("categories"), "`categories`: expected a list of at least one"),
        (lambda c: c["videos"].append({}), "videos[2]: `id`: expected an integer, got None"),
        (
            lambda c: c["videos"].append(dict(c["videos"][0])),
            "videos[2] (video 1): an earlier entry has the same id 1",
        ),
        (
            lambda c: c["videos"][0].update(height=0),
            "videos[0] (video 1): expected positive integers [height, width], got [0, 20]",
        ),
        (
            lambda c: c["videos"][0].update(height=10**5, width=10**5),
            "frames of more than 536870911 pixels cannot be read",
        ),
        (lambda c: c["categories"].append({"name": "x"}), "categories[2]: `id`: expected an integer, got None"),
        (lambda c: c["categories"].append({"id": 1}), "categories[2]: an earlier entry has the same id 1"),
    ],
)
def test_annotations(change, message):
    content, _ = tiny(num_videos=2)
    change(content)
    (problem,) = problems_of(content)
    assert message in problem


def test_annotations_of_another_shape():
    assert problems_of(3) == [
        "expected an object with the list 'videos', as in YouTube-VIS and OVIS, or a list of annotations; got int"
    ]
    (problem,) = problems_of([{"id": 1, "video_id": 1, "category_id": 1, "segmentations": [None]}])
    assert problem.endswith("the file has no video of known size with this id")


def test_what_real_files_leave_out_is_no_problem():
    content, predictions = tiny()
    content["videos"][0].pop("length")
    content["videos"][0]["file_names"] = ["a.jpg", "b.jpg"]
    content["annotations"][0].pop("id")
    content["annotations"][0]["segmentations"] = [uncompressed(square()), compressed(square(at=3))]
    content["annotations"][0]["ignore"] = 1  # overwritten by `iscrowd` in the official scorers, too
    content["categories"][0].pop("name")
    result = score(content, predictions)
    assert result["AP"] == pytest.approx(1) and result["per_category"] == {"1": pytest.approx(1), "dog": -1}


def test_files(tmp_path):
    content, predictions = tiny()
    empty, broken, good = (tmp_path / name for name in ("empty.json", "broken.json", "good.json"))
    empty.write_text(" \n")
    broken.write_text(json.dumps(predictions)[:-5])
    good.write_text(json.dumps(content))
    with pytest.raises(InvalidInputError, match=re.escape(f"{empty}: the file is empty, expected json")):
        VisEvaluator(empty)
    evaluator = VisEvaluator(good)
    with pytest.raises(InvalidInputError, match=r"empty.json: the file is empty, expected json"):
        evaluator.add(str(empty))
    with pytest.raises(InvalidInputError, match=r"broken.json: the file is not json: .*char"):
        evaluator.add(broken)
    with pytest.raises(InvalidInputError, match=r"good.json: expected a list of predictions, got \{'videos'"):
        evaluator.add(good)  # the annotations in place of the predictions
    with pytest.raises(FileNotFoundError):
        VisEvaluator(tmp_path / "none.json")

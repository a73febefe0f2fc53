"""The `evaluate` adapter: it takes a path offline, and passes everything to `VisEvaluator`."""

import json
import sys
from pathlib import Path

import pytest

from helpers.scoring_cases import score, tiny
from vita_hf.metrics import VIS_AP

GOLDEN = Path(__file__).parents[1] / "golden" / "eval"
NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    evaluate = pytest.importorskip("evaluate")
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
    yield evaluate.load(VIS_AP, cache_dir=str(tmp_path_factory.mktemp("cache")))
    patch.undo()


def test_evaluate_takes_the_folder(metric):
    files = {"predictions": str(GOLDEN / "pred0.json"), "references": str(GOLDEN / "gt.json")}
    expected = score(files["references"], files["predictions"])
    assert metric.compute(**files) == expected
    content, predictions = (json.loads(Path(files[k]).read_text()) for k in ("references", "predictions"))
    assert metric.compute(predictions=predictions, references=content) == expected
    for prediction in predictions:
        metric.add(prediction=prediction, reference=content)
    assert len(metric) == len(predictions)
    assert metric.compute() == expected
    metric.add_batch(predictions=predictions[:30])
    metric.add_batch(predictions=predictions[30:], references=files["references"])
    assert metric.compute() == expected
    for annotation in content["annotations"]:
        metric.add(reference=annotation)
    metric.add_batch(predictions=[p for p in predictions if p["category_id"] != 6])
    result = metric.compute()
    assert [result[key] for key in NUMBERS] == pytest.approx([expected[key] for key in NUMBERS], abs=1e-12)


def test_evaluate_copies_every_module(metric):
    copy = Path(sys.modules[type(metric).__module__].__file__).parent
    assert copy != Path(VIS_AP)
    assert {path.name for path in Path(VIS_AP).glob("*.py")} - {"app.py"} == {path.name for path in copy.glob("*.py")}


def test_evaluate_without_predictions_and_references(metric):
    content, predictions = tiny()
    assert metric.compute(predictions=[], references=content)["AP"] == 0
    assert metric.compute(references=content)["AP"] == 0
    metric.add_batch(predictions=predictions)
    with pytest.raises(ValueError, match="there are no references"):
        metric.compute()
    assert len(metric) == 0
    with pytest.raises(ValueError, match=r"unknown inputs \['weights'\]"):
        metric.compute(predictions=predictions, references=content, weights=1)
    metric.add_batch(references=content)
    with pytest.raises(ValueError, match="other references were added before"):
        metric.add_batch(references={**content, "annotations": []})
    metric.compute()


def test_lists_of_references_are_complete_before_state(metric):
    content, predictions = tiny(num_videos=2)
    metric.add_batch(predictions=predictions, references=content["annotations"][:1])
    metric.state()
    with pytest.raises(ValueError, match=r"cannot grow after state\(\) or merge\(\)"):
        metric.add_batch(references=content["annotations"][1:])
    metric.compute()


def test_evaluate_combines_and_merges(metric):
    import evaluate

    content, predictions = tiny(num_videos=2)
    combined = evaluate.combine([metric])
    assert combined.compute(predictions=predictions, references=content)["AP"] == pytest.approx(1)
    combined.add(predictions[0], content)
    combined.add(predictions[1], content)
    assert combined.compute()["AP"] == pytest.approx(1)
    metric.add_batch(predictions=predictions[:1], references=content)
    state = metric.state()
    metric.compute()
    metric.add_batch(predictions=predictions[1:], references=content)
    metric.merge([state])
    assert metric.compute()["AP"] == pytest.approx(1)
    with pytest.raises(ValueError, match=r"num_process > 1 is not supported: .* `merge\(\)`"):
        evaluate.load(VIS_AP, num_process=2, process_id=0)

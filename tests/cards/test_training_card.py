"""The card of a trained model."""

import pytest
from huggingface_hub import ModelCard, ModelCardData

from vita_hf import VitaConfig
from vita_hf.cards.training import DataSource, TrainingReport, training_card

REPORT = {
    "recipe": "ytvis2019-r50",
    "data": [
        DataSource(name="ytvis2019", annotations="train.json", videos=2238, weight=1.0),
        DataSource(name="coco", videos=50, weight=0.5),
        DataSource(name="My Aquarium"),
    ],
    "steps": 140000,
    "batch_size": 8,
    "seed": 7,
}
METRICS = {"AP": 0.49812, "AP50": 0.72649, "APs": -1.0, "AR1": 0, "per_category": {"cat": 0.5, "dog|wolf": -1.0}}


def config():
    return VitaConfig(num_labels=3, num_queries=20, num_video_queries=10, evaluation_top_k=20)


def test_card_of_a_measured_model():
    report = TrainingReport(
        **REPORT,
        overrides=["training.seed=7", "model.num_queries=20"],
        versions={"torch": "2.14.1", "vita-hf": "0.1.0"},
        metrics=METRICS,
        evaluated_on=DataSource(name="ytvis2019", annotations="valid.json", videos=302),
        split="validation",
        base_model="facebook/mask2former-swin-tiny-coco-instance",
        license="cc-by-4.0",
        hardware="1 × NVIDIA H100",
        seconds=93784.4,
        learning_curve=[{"step": 1000, "loss": 31.41592, "AP": 0.1}, {"step": 2000, "loss": 27.0, "AP": 0.2}],
        notes="  Stopped once | resumed.\n",
    )
    text = training_card(config(), report, title="Fish and pets", dataset="ytvis2019")
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "image-segmentation", "cc-by-4.0")
    assert data.tags[0] == "video-instance-segmentation"
    assert data.datasets == ["youtube-vis-2019", "coco"]  # the user's own files are not datasets of the Hub
    assert data.base_model == "facebook/mask2former-swin-tiny-coco-instance"
    assert data.model_name == "Fish and pets"
    results = {result.metric_type: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {"AP": 0.4981, "AP50": 0.7265, "AR1": 0}
    assert {(r.dataset_type, r.dataset_name, r.dataset_split, r.task_type) for r in results.values()} == {
        ("youtube-vis-2019", "YouTube-VIS 2019", "validation", "image-segmentation")
    }
    for line in (
        "# Fish and pets",
        "on YouTube-VIS 2019 (validation, `valid.json`, 302 videos), in per cent:",
        "| AP | AP50 | AR1 |\n| --- | --- | --- |\n| 49.8 | 72.6 | 0.0 |",
        "| cat | 50.0 |\n| dog\\|wolf | – |",
        "| Recipe | `ytvis2019-r50` |",
        "| Changes to it | `training.seed=7`, `model.num_queries=20` |",
        "| Data | YouTube-VIS 2019 (`train.json`, 2,238 videos, weight 1); COCO (50 images, weight 0.5); My Aquarium |",
        "| Optimizer steps | 140,000 |",
        "| Clips per step | 8 |",
        "| Seed | 7 |",
        "| Initial weights | `facebook/mask2former-swin-tiny-coco-instance` |",
        "| Hardware | 1 × NVIDIA H100 |",
        "| Time | 1 day, 2:03:04 |",
        "| Versions | torch 2.14.1, vita-hf 0.1.0 |",
        "| step | loss | AP |\n| --- | --- | --- |\n| 1000 | 31.42 | 0.1 |\n| 2000 | 27 | 0.2 |",
        "## Notes\n\nStopped once | resumed.\n\n## Citation",
        "| Categories | 3 (YouTube-VIS 2019) |",
        "top_k=20",
    ):
        assert line in text
    assert "authors' numbers" not in text and "\n\n\n" not in text


def test_card_without_results():
    text = training_card(config(), TrainingReport(**REPORT))
    data = ModelCard(text).data
    assert (data.eval_results, data.base_model, data.license) == (None, None, None)
    assert "# VITA, ytvis2019-r50" in text
    assert "Nothing was measured." in text
    assert "| Initial weights | random |" in text and "| Changes to it | none |" in text
    for absent in ("Hardware", "Learning curve", "Notes", "Versions", "| Time |"):
        assert absent not in text
    assert "\n\n\n" not in text


def test_reports_are_complete():
    with pytest.raises(ValueError, match=r"metrics without evaluated_on"):
        TrainingReport(**REPORT, metrics={"AP": 0.5})
    with pytest.raises(ValueError, match=r"expected the columns \['step', 'AP'\] in every row, got \['step', 'loss'\]"):
        TrainingReport(**REPORT, learning_curve=[{"step": 1, "AP": 0.1}, {"step": 2, "loss": 1.0}])

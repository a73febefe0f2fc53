"""Model cards for models trained with this package."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Template

from ..configuration_vita import VitaConfig
from .model import PUBLISHED_DATASETS, TEMPLATES, dataset_id, dataset_title, render_card


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """
    A dataset that a model was trained or evaluated on.

    Attributes:
        name: A name of [`vita_hf.data.categories`], or any other name.
        annotations: The name of the annotation file.
        videos: The number of videos (or images).
        weight: How often training draws from this dataset, relative to the others.
    """

    name: str
    annotations: str | None = None
    videos: int | None = None
    weight: float | None = None

    def describe(self, split: str | None = None) -> str:
        """Describe the dataset, for example: YouTube-VIS 2019 (`train.json`, 2,238 videos, weight 1)."""
        details = [split] if split else []
        if self.annotations:
            details.append(f"`{self.annotations}`")
        if self.videos is not None:
            details.append(f"{self.videos:,} {'images' if self.name == 'coco' else 'videos'}")
        if self.weight is not None:
            details.append(f"weight {self.weight:g}")
        return dataset_title(self.name) + (f" ({', '.join(details)})" if details else "")


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """
    What the card of a trained model says about its training and its scores.

    Attributes:
        recipe: The name of the recipe.
        data: The training data.
        steps, batch_size, seed: Optimizer steps, clips per step and seed of the training.
        overrides: Changes to the recipe, each `section.key=value`.
        versions: Package versions by name.
        metrics: Scores as the metric returns them: fractions, -1 where undefined, and optionally `per_category`.
        evaluated_on: The data behind `metrics`.
        split: The split of `evaluated_on`, by the Hub's names, if it is known.
        base_model: The model that training started from, a Hub id or a name. None: trained from scratch.
        license: The license of the weights, by the Hub's names.
        hardware: The hardware that trained the model, for example "1 × NVIDIA H100".
        seconds: The duration of the training, evaluations included.
        learning_curve: Rows with equal keys, the first key `step`.
        notes: Anything else, in Markdown.

    Raises:
        ValueError: if there are metrics but no `evaluated_on`, or if the rows of the learning curve differ in keys.
    """

    recipe: str
    data: Sequence[DataSource]
    steps: int
    batch_size: int
    seed: int
    overrides: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    evaluated_on: DataSource | None = None
    split: str | None = None
    base_model: str | None = None
    license: str | None = None
    hardware: str | None = None
    seconds: float | None = None
    learning_curve: Sequence[Mapping[str, float]] = ()
    notes: str | None = None

    def __post_init__(self):
        if self.metrics and self.evaluated_on is None:
            raise ValueError("metrics without evaluated_on: expected the data that they were measured on")
        columns = [list(row) for row in self.learning_curve]
        for row in columns:
            if row != columns[0]:
                raise ValueError(f"learning_curve: expected the columns {columns[0]} in every row, got {row}")

    def scores(self) -> dict[str, float]:
        """Return the metrics that have a value."""
        return {name: value for name, value in self.metrics.items() if isinstance(value, int | float) and value >= 0}


def training_card(
    config: VitaConfig, report: TrainingReport, title: str | None = None, dataset: str | None = None
) -> str:
    """
    Write the card of a trained model: Markdown that starts with the metadata the Hub reads, scores included.

    Args:
        config: The configuration of the model.
        report: What to say about training and scores.
        title: The heading. By default "VITA" and the name of the recipe.
        dataset: The dataset whose categories the model predicts, if it has a name.

    Example:
    ```python
    >>> from vita_hf import VitaConfig
    >>> from vita_hf.cards.training import DataSource, TrainingReport, training_card

    >>> pets = DataSource(name="pets", videos=120)
    >>> report = TrainingReport(recipe="ytvis2019-r50", data=[pets], steps=9000, batch_size=8, seed=0)
    >>> card = training_card(VitaConfig(num_labels=3), report, title="Cats and dogs")
    >>> [line for line in card.splitlines() if line.startswith("| Data")]
    ['| Data | pets (120 videos) |']

    ```
    """
    title = title or f"VITA, {report.recipe}"
    # The Hub links published datasets; it does not know the user's own files.
    published = dict.fromkeys(dataset_id(source.name) for source in report.data if source.name in PUBLISHED_DATASETS)
    metadata = ModelCardData(
        model_name=title,
        license=report.license,
        base_model=report.base_model,
        datasets=list(published) or None,
        eval_results=_eval_results(report) or None,
    )
    return render_card(
        "training.md",
        config,
        metadata,
        layout=Template((TEMPLATES / "model.md").read_text(encoding="utf-8")),
        title=title,
        dataset=dataset and dataset_title(dataset),
        report=report,
        duration=None if report.seconds is None else timedelta(seconds=round(report.seconds)),
    )


def _eval_results(report: TrainingReport) -> list[EvalResult]:
    source = report.evaluated_on
    if source is None:
        return []
    return [
        EvalResult(
            task_type="image-segmentation",
            task_name="Video instance segmentation",
            dataset_type=dataset_id(source.name),
            dataset_name=dataset_title(source.name),
            dataset_split=report.split,
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in report.scores().items()
    ]


__all__ = ["DataSource", "TrainingReport", "training_card"]

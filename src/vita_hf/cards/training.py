"""Model cards (README.md) of models trained with this package."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..configuration_vita import VitaConfig
from .model import PUBLISHED_DATASETS, dataset_id, dataset_title, fill_card


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """
    Data that a model was trained on or measured with.

    Attributes:
        name: A name of [`vita_hf.data.categories`], or any other.
        annotations: The annotation file's name.
        videos: How many videos (or images) it has.
        weight: How often it is drawn from, relative to the others.
    """

    name: str
    annotations: str | None = None
    videos: int | None = None
    weight: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """
    How a model was trained and what was measured: what its card says.

    Attributes:
        recipe: Name of the recipe.
        data: What it was trained on.
        steps: Optimiser steps.
        batch_size: Clips in a step.
        seed: The seed of the training.
        overrides: What differed from the recipe, `section.key=value`.
        versions: Versions of the packages, by name.
        metrics: Measured results as the metric gives them: fractions, -1 where undefined, and maybe `per_category`.
        evaluated_on: The data of the metrics.
        split: Which part of that data set it is, by the Hub's names; None where that isn't known.
        base_model: The model that the weights come from, a Hub id or a name; None if trained from nothing.
        license: Of the weights, by the Hub's names.
        hardware: What it was trained on, for example "1 × NVIDIA H100".
        seconds: What it took, evaluations included.
        learning_curve: Rows with the same keys, the first of them `step`.
        notes: Anything else, Markdown.

    Raises:
        ValueError: There are metrics, but not what they were measured on; or the learning curve's rows differ.
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
        for row in self.learning_curve:
            if list(row) != list(self.learning_curve[0]):
                raise ValueError(
                    f"learning_curve: expected the columns {list(self.learning_curve[0])} in every row, got {list(row)}"
                )


def training_card(
    config: VitaConfig, report: TrainingReport, title: str | None = None, dataset: str | None = None, top_k: int = 10
) -> str:
    """
    Text of a trained model's card, with the metadata the Hub reads on top: results as `model-index`, in fractions.

    Args:
        config: the model's configuration.
        report: how it was trained and what was measured.
        title: the heading; by default "VITA" and the recipe's name.
        dataset: the data set whose categories it predicts, where that has a name.
        top_k: predictions a video in the evaluation.
    """
    title = title or f"VITA, {report.recipe}"
    # Others are files of the user's own, not data sets that the Hub could link to.
    names = dict.fromkeys(dataset_id(source.name) for source in report.data if source.name in PUBLISHED_DATASETS)
    metadata = ModelCardData(
        model_name=title,
        license=report.license,
        base_model=report.base_model,
        datasets=list(names) or None,
        eval_results=_eval_results(report) or None,
    )
    start = f"starting from the weights of `{report.base_model}`" if report.base_model else "from nothing"
    origin = f"These weights were trained with `vita-hf`, a package for Hugging Face Transformers, {start}."
    sections = [_results(report), _training(report), _curve(report)]
    if report.notes:
        sections.append(f"## Notes\n\n{report.notes.strip()}\n")
    return fill_card(
        config,
        metadata,
        title=title,
        origin=origin,
        sections="\n" + "\n".join(section for section in sections if section),
        dataset=dataset,
        top_k=top_k,
    )


def _numbers(report: TrainingReport) -> dict[str, float]:
    """The metrics that have a value."""
    return {name: value for name, value in report.metrics.items() if isinstance(value, int | float) and value >= 0}


def _eval_results(report: TrainingReport) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-segmentation",
            task_name="Video instance segmentation",
            dataset_type=dataset_id(report.evaluated_on.name),
            dataset_name=dataset_title(report.evaluated_on.name),
            dataset_split=report.split,
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in _numbers(report).items()
    ]


def _results(report: TrainingReport) -> str:
    numbers = _numbers(report)
    if not numbers:
        return "## Results\n\nNothing was measured.\n"
    data = _describe(report.evaluated_on, report.split)
    text = f"## Results\n\nMeasured with `vita-hf`'s metric on {data}, in per cent.\n\n"
    text += _table([{name: f"{100 * value:.1f}" for name, value in numbers.items()}])
    categories = report.metrics.get("per_category")
    if categories:
        shown = {name: "–" if value < 0 else f"{100 * value:.1f}" for name, value in categories.items()}
        text += "\nAP by category:\n\n" + _table([{"category": name, "AP": value} for name, value in shown.items()])
    return text


def _training(report: TrainingReport) -> str:
    rows = {
        "Recipe": f"`{report.recipe}`",
        "Changes to it": ", ".join(f"`{override}`" for override in report.overrides) or "none",
        "Data": "; ".join(_describe(source) for source in report.data),
        "Optimiser steps": f"{report.steps:,}",
        "Clips in a step": report.batch_size,
        "Seed": report.seed,
        "Started from": f"`{report.base_model}`" if report.base_model else "nothing",
        "Hardware": report.hardware,
        "Time": None if report.seconds is None else str(timedelta(seconds=round(report.seconds))),
        "Versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    rows = {name: value for name, value in rows.items() if value not in (None, "")}
    return "## Training\n\n" + _table([{"": name, " ": value} for name, value in rows.items()])


def _curve(report: TrainingReport) -> str:
    if not report.learning_curve:
        return ""
    rows = [
        {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
        for row in report.learning_curve
    ]
    return "## Learning curve\n\n" + _table(rows)


def _describe(source: DataSource, split: str | None = None) -> str:
    """For example: YouTube-VIS 2019 (`train.json`, 2,238 videos, weight 1)."""
    details = [split] if split else []
    if source.annotations:
        details.append(f"`{source.annotations}`")
    if source.videos is not None:
        details.append(f"{source.videos:,} {'images' if source.name == 'coco' else 'videos'}")
    if source.weight is not None:
        details.append(f"weight {source.weight:g}")
    return dataset_title(source.name) + (f" ({', '.join(details)})" if details else "")


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of rows with the same keys."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


__all__ = ["DataSource", "TrainingReport", "training_card"]

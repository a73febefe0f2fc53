"""Model cards: the layout of all VITA cards, and the card of a converted checkpoint."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..configuration_vita import VitaConfig

TEMPLATES = Path(__file__).parent / "templates"

PUBLISHED_DATASETS = {"coco": "COCO", "ytvis2019": "YouTube-VIS 2019", "ytvis2021": "YouTube-VIS 2021", "ovis": "OVIS"}
_BACKBONES = {"r50": "ResNet-50", "r101": "ResNet-101", "swinl": "Swin-L"}

# AP, AP50, AP75, AR1, AR10 on the validation split: the model zoo of `sukjunhwang/VITA`.
_PUBLISHED_SCORES = {
    "ytvis2019-r50": (49.8, 72.6, 54.5, 49.4, 61.0),
    "ytvis2019-swinl": (63.0, 86.9, 67.9, 56.3, 68.1),
    "ytvis2021-r50": (45.7, 67.4, 49.5, 40.9, 53.6),
    "ytvis2021-swinl": (57.5, 80.6, 61.0, 47.7, 62.6),
    "ovis-r50": (19.6, 41.2, 17.4, 11.7, 26.0),
    "ovis-swinl": (27.7, 51.9, 24.9, 14.9, 33.0),
}


def model_card(config: VitaConfig, dataset: str | None = None, recipe: str | None = None) -> str:
    """
    Write the card of a converted checkpoint: Markdown that starts with the metadata the Hub reads.

    Args:
        config: The configuration of the converted model.
        dataset: The dataset whose categories the model predicts, a name of [`vita_hf.data.categories`].
        recipe: The recipe that the checkpoint was converted with. It adds the scores that the authors published.

    Example:
    ```python
    >>> from vita_hf import VitaConfig
    >>> from vita_hf.cards.model import model_card

    >>> card = model_card(VitaConfig(num_labels=40), "ytvis2019", "ytvis2019-r50")
    >>> [line for line in card.splitlines() if line.startswith("# ")]
    ['# VITA, ResNet-50, YouTube-VIS 2019']

    ```
    """
    backbone = _BACKBONES.get(recipe.rpartition("-")[2]) if recipe else None
    title = dataset and dataset_title(dataset)
    # The video models were trained jointly with COCO.
    trained_on = dict.fromkeys(["coco", dataset]) if dataset else ()
    return render_card(
        "model.md",
        config,
        ModelCardData(license="apache-2.0", datasets=[dataset_id(name) for name in trained_on] or None),
        title=", ".join(part for part in ("VITA", backbone, title) if part),
        dataset=title,
        backbone=backbone,
        recipe=recipe,
        published=_PUBLISHED_SCORES.get(recipe),
    )


def render_card(template: str, config: VitaConfig, metadata: ModelCardData, **values: Any) -> str:
    """Fill a template, and add the metadata that all VITA models share."""
    metadata.library_name = "transformers"
    metadata.pipeline_tag = "image-segmentation"  # the Hub has no task for video segmentation
    metadata.tags = ["video-instance-segmentation", "vita", "mask2former"]
    card = ModelCard.from_template(metadata, template_path=str(TEMPLATES / template), config=config, **values)
    return f"{card}\n"


def dataset_title(name: str) -> str:
    """Return the published name of a dataset; names of other datasets stay as they are."""
    return PUBLISHED_DATASETS.get(name, name)


def dataset_id(name: str) -> str:
    """Return the name of a dataset in the metadata of a card, for example youtube-vis-2019."""
    return dataset_title(name).lower().replace(" ", "-")

"""Model cards (README.md): what all have in common, and those of converted checkpoints."""

from huggingface_hub import ModelCardData

from ..configuration_vita import VitaConfig
from ..recipes import load_recipe

PUBLISHED_DATASETS = {"coco": "COCO", "ytvis2019": "YouTube-VIS 2019", "ytvis2021": "YouTube-VIS 2021", "ovis": "OVIS"}
_BACKBONES = {"r50": "ResNet-50", "r101": "ResNet-101", "swinl": "Swin-L"}

# AP, AP50, AP75, AR1, AR10 on the validation split: the model zoo of `sukjunhwang/VITA`.
_PUBLISHED = {
    "ytvis2019-r50": (49.8, 72.6, 54.5, 49.4, 61.0),
    "ytvis2019-swinl": (63.0, 86.9, 67.9, 56.3, 68.1),
    "ytvis2021-r50": (45.7, 67.4, 49.5, 40.9, 53.6),
    "ytvis2021-swinl": (57.5, 80.6, 61.0, 47.7, 62.6),
    "ovis-r50": (19.6, 41.2, 17.4, 11.7, 26.0),
    "ovis-swinl": (27.7, 51.9, 24.9, 14.9, 33.0),
}

_CARD = """\
---
{metadata}
---

# {title}

VITA segments and tracks every object of its categories through a video. A Mask2Former detector turns each frame into a
few object tokens; a transformer associates the tokens of all frames and predicts, for each object, one class and a mask
in every frame. Paper: [VITA: Video Instance Segmentation via Object Token Association](https://arxiv.org/abs/2206.04403)
(Heo, Hwang, Oh, Lee, Kim; NeurIPS 2022).

{origin}

| | |
|---|---|
| Backbone | {backbone} |
| Categories | {categories} |
| Frame queries, video queries | {num_queries}, {num_video_queries} |
| Object encoder's window | {window} |

## Use

A video of any length; tracks that score at least 0.3, each with its best label:

```python
import vita_hf  # registers the classes
from transformers import pipeline

segmenter = pipeline("video-instance-segmentation", model="path/to/this/directory")
result = segmenter("clip.mp4")
for track, label, score in zip(result.track_ids.tolist(), result.label_names, result.scores.tolist()):
    print(track, label, round(score, 3))
result.render("clip.mp4", "overlay.mp4")
result.to_json("results.json")
```

Step by step, for a clip that fits into memory, by the rule of benchmarks ({top_k} predictions a video):

```python
import torch
import vita_hf
from transformers import AutoModelForUniversalSegmentation, AutoVideoProcessor

path = "path/to/this/directory"
model = AutoModelForUniversalSegmentation.from_pretrained(path)
processor = AutoVideoProcessor.from_pretrained(path)

inputs = processor("clip.mp4", return_tensors="pt", return_metadata=True)
video = inputs.pop("video_metadata")[0]
with torch.no_grad():
    outputs = model(**inputs)
result = processor.post_process_video_instance_segmentation(
    outputs, inputs["frame_sizes"], target_sizes=[(video.height, video.width)], top_k={top_k}
)[0]
for score, label, mask in zip(result.scores, result.labels, result.masks):  # mask: (T, height, width) bool
    print(model.config.id2label[label.item()], round(score.item(), 3), mask.flatten(1).sum(1).tolist())
```
{sections}
## Citation

```bibtex
@inproceedings{{heo2022vita,
  title     = {{VITA: Video Instance Segmentation via Object Token Association}},
  author    = {{Heo, Miran and Hwang, Sukjun and Oh, Seoung Wug and Lee, Joon-Young and Kim, Seon Joo}},
  booktitle = {{Advances in Neural Information Processing Systems}},
  year      = {{2022}}
}}
```
"""

_CONVERTED = """\
These are weights of the [original implementation](https://github.com/sukjunhwang/VITA), converted to the names of
`vita-hf`, a package for Hugging Face Transformers. Nothing was trained or changed in the conversion."""

_RESULTS = """
## Results

Reported by the authors for their released weights with the configuration `{recipe}`, on the validation split of
{dataset}. **These are the authors' numbers: nothing was measured with this package or with these files.**

| AP | AP50 | AP75 | AR1 | AR10 |
|---|---|---|---|---|
| {figures} |
"""


_LICENCE = """
## Licence

The original code is under the Apache License 2.0, with parts of Mask2Former under the MIT License. Its authors
published weights beside it and state no separate licence for them. The data sets that the weights were trained on have
terms of their own.
"""


def model_card(config: VitaConfig, dataset: str | None = None, recipe: str | None = None) -> str:
    """
    Text of a converted checkpoint's model card, with the metadata the Hub reads on top.

    Args:
        config: the converted model's configuration.
        dataset: the data set whose categories it predicts, a name of [`vita_hf.data.categories`].
        recipe: the recipe it was converted with; adds the authors' results where they published some.
    """
    backbone, title, top_k = None, "VITA", 10
    if recipe is not None:
        settings = load_recipe(recipe)
        dataset, top_k = settings["data"]["dataset"], settings["evaluation"]["top_k"]
        backbone = _BACKBONES[recipe.rpartition("-")[2]]
        title = f"VITA, {backbone}, {PUBLISHED_DATASETS[dataset]}"
    elif dataset is not None:
        title = f"VITA, {PUBLISHED_DATASETS[dataset]}"

    results = ""
    if recipe in _PUBLISHED:
        figures = " | ".join(f"{figure:.1f}" for figure in _PUBLISHED[recipe])
        results = _RESULTS.format(recipe=recipe, dataset=PUBLISHED_DATASETS[dataset], figures=figures)
    # The video models were trained jointly with COCO.
    trained_on = [] if dataset is None else ["coco"] if dataset == "coco" else ["coco", dataset]
    return fill_card(
        config,
        ModelCardData(license="apache-2.0", datasets=[dataset_id(name) for name in trained_on] or None),
        title=title,
        origin=_CONVERTED,
        sections=results + _LICENCE,
        backbone=backbone,
        dataset=dataset,
        top_k=top_k,
    )


def fill_card(
    config: VitaConfig,
    metadata: ModelCardData,
    *,
    title: str,
    origin: str,
    sections: str,
    backbone: str | None = None,
    dataset: str | None = None,
    top_k: int = 10,
) -> str:
    """
    What the cards of all VITA models have in common.

    Args:
        config: the model's configuration.
        metadata: what is particular to this model; the rest is filled in.
        title: the card's heading.
        origin: where the weights come from.
        sections: headings and text between the model's use and the citation.
        backbone: its name; by default the configuration's.
        dataset: the data set whose categories it predicts, as for [`model_card`].
        top_k: predictions a video in benchmarks.
    """
    metadata.library_name = "transformers"
    # The Hub has no task for video segmentation.
    metadata.pipeline_tag = "image-segmentation"
    metadata.tags = ["video-instance-segmentation", "vita", "mask2former"]
    return _CARD.format(
        metadata=metadata.to_yaml(),
        title=title,
        origin=origin,
        sections=sections,
        backbone=backbone or getattr(config.backbone_config, "backbone", None) or config.backbone_config.model_type,
        categories=f"{config.num_labels}" + (f" ({dataset_title(dataset)})" if dataset else ""),
        num_queries=config.num_queries,
        num_video_queries=config.num_video_queries,
        window=f"{config.object_encoder_window_size} frames"
        if config.object_encoder_window_size
        else "the whole video",
        top_k=top_k,
    )


def dataset_title(name: str) -> str:
    """A data set's name as it is written; unknown ones stay as they are."""
    return PUBLISHED_DATASETS.get(name, name)


def dataset_id(name: str) -> str:
    """A data set's name in a card's metadata, for example youtube-vis-2019."""
    return dataset_title(name).lower().replace(" ", "-")


__all__ = ["PUBLISHED_DATASETS", "dataset_id", "dataset_title", "fill_card", "model_card"]

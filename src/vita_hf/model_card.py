"""The model card (README.md) of a converted checkpoint."""

from huggingface_hub import ModelCardData

from .configuration_vita import VitaConfig
from .recipes import load_recipe

_DATASETS = {"coco": "COCO", "ytvis2019": "YouTube-VIS 2019", "ytvis2021": "YouTube-VIS 2021", "ovis": "OVIS"}
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

These are weights of the [original implementation](https://github.com/sukjunhwang/VITA), converted to the names of
`vita-hf`, a package for Hugging Face Transformers. Nothing was trained or changed in the conversion.

| | |
|---|---|
| Backbone | {backbone} |
| Categories | {categories} |
| Frame queries, video queries | {num_queries}, {num_video_queries} |
| Object encoder's window | {window} |

## Use

```python
import torch
import vita_hf  # registers the classes
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
{results}
## Licence

The original code is under the Apache License 2.0, with parts of Mask2Former under the MIT License. Its authors
published weights beside it and state no separate licence for them. The data sets that the weights were trained on have
terms of their own.

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

_RESULTS = """
## Results

Reported by the authors for their released weights with the configuration `{recipe}`, on the validation split of
{dataset}. **These are the authors' numbers: nothing was measured with this package or with these files.**

| AP | AP50 | AP75 | AR1 | AR10 |
|---|---|---|---|---|
| {figures} |
"""


def model_card(config: VitaConfig, dataset: str | None = None, recipe: str | None = None) -> str:
    """
    Text of a model card, with the metadata the Hub reads on top.

    Args:
        config: the converted model's configuration.
        dataset: the data set whose categories it predicts, a name of [`vita_hf.data.categories`].
        recipe: the recipe it was converted with; adds the authors' results where they published some.
    """
    backbone = config.backbone_config
    backbone_name = getattr(backbone, "backbone", None) or backbone.model_type
    title = "VITA"
    top_k = 10
    if recipe is not None:
        settings = load_recipe(recipe)
        dataset, top_k = settings["data"]["dataset"], settings["evaluation"]["top_k"]
        backbone_name = _BACKBONES[recipe.rpartition("-")[2]]
        title = f"VITA, {backbone_name}, {_DATASETS[dataset]}"
    elif dataset is not None:
        title = f"VITA, {_DATASETS[dataset]}"

    results = ""
    if recipe in _PUBLISHED:
        figures = " | ".join(f"{figure:.1f}" for figure in _PUBLISHED[recipe])
        results = _RESULTS.format(recipe=recipe, dataset=_DATASETS[dataset], figures=figures)
    metadata = ModelCardData(
        library_name="transformers",
        # The Hub has no task for video segmentation.
        pipeline_tag="image-segmentation",
        tags=["video-instance-segmentation", "vita", "mask2former"],
        license="apache-2.0",
        datasets=[name.lower().replace(" ", "-") for name in _training_sets(dataset)] or None,
    )
    return _CARD.format(
        metadata=metadata.to_yaml(),
        title=title,
        backbone=backbone_name,
        categories=f"{config.num_labels}" + (f" ({_DATASETS[dataset]})" if dataset else ""),
        num_queries=config.num_queries,
        num_video_queries=config.num_video_queries,
        window=f"{config.object_encoder_window_size} frames"
        if config.object_encoder_window_size
        else "the whole video",
        top_k=top_k,
        results=results,
    )


def _training_sets(dataset: str | None) -> list[str]:
    """Names of the data sets in the training of a model for `dataset`: the video ones are trained jointly with COCO."""
    if dataset is None:
        return []
    return ["COCO"] if dataset == "coco" else ["COCO", _DATASETS[dataset]]


__all__ = ["model_card"]

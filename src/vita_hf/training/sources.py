"""Which data a recipe and the command line ask for."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.clips import ClipSettings
from ..data.coco import read_coco
from ..data.layout import find_split
from ..data.schema import VideoDataset, without_empty
from ..data.ytvis import read_ytvis


@dataclass(frozen=True)
class Source:
    """Clips to train on: a data set, how clips are drawn from it, and how often relative to the other sources."""

    data: VideoDataset
    clips: ClipSettings
    weight: float


def recipe_sources(recipe: dict[str, Any], root: str | os.PathLike, skip_broken: bool = False) -> list[Source]:
    """
    The sources that a recipe names, in the folders that their archives unpack to (see [`find_split`]).

    Args:
        recipe: with `data.dataset`, whose classes the labels are, and `data.train`, a list of `{dataset, weight}` and
            maybe `clips` that differ from the recipe's own.
        root: the folder that holds the data sets' folders.
        skip_broken: leave out videos with faults in the annotation file.
    """
    target = recipe["data"]["dataset"]
    sources = []
    for entry in recipe["data"]["train"]:
        clips = ClipSettings.from_dict({**recipe["clips"], **entry.get("clips", {})})
        annotations, images = find_split(entry["dataset"], root)
        if entry["dataset"] == "coco":
            data = read_coco(annotations, images, target=target, skip_broken=skip_broken)
        else:
            data = read_ytvis(annotations, images, categories=entry["dataset"], skip_broken=skip_broken)
        sources.append(Source(data, clips, float(entry.get("weight", 1.0))))
    return ready(sources)


def own_source(
    recipe: dict[str, Any], annotations: str | os.PathLike, images: str | os.PathLike, skip_broken: bool = False
) -> list[Source]:
    """A user's own data in YouTube-VIS's (or, for images, COCO's) form; its classes are the file's categories."""
    of_images = recipe["data"].get("dataset") == "coco"
    name = Path(annotations).stem
    if of_images:
        data = read_coco(annotations, images, target=None, skip_broken=skip_broken, name=name)
    else:
        data = read_ytvis(annotations, images, skip_broken=skip_broken, name=name)
    return ready([Source(data, ClipSettings.from_dict(recipe["clips"]), 1.0)])


def ready(sources: list[Source]) -> list[Source]:
    """Leave out what has nothing to learn from, and check that all sources have the same classes."""
    for source in sources[1:]:
        if source.data.id2label != sources[0].data.id2label:
            raise ValueError(
                f"{source.data.name} and {sources[0].data.name} have different classes: "
                f"{list(source.data.id2label.values())[:5]}… and {list(sources[0].data.id2label.values())[:5]}…"
            )
    return [replace(s, data=replace(s.data, rows=without_empty(s.data.rows))) for s in sources]


__all__ = ["Source", "own_source", "ready", "recipe_sources"]

"""Which data a recipe and the command line ask for."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset

from ..data.clips.schedule import ClipDataset, SampleSchedule
from ..data.clips.settings import ClipSettings
from ..data.clips.streamed import StreamedClips
from ..data.layout import find_split
from ..data.parquet import read_parquet
from ..data.readers import read_coco, read_ytvis
from ..data.schema import VideoDataset, without_empty
from ..recipes import Recipe, TrainingSettings


@dataclass(frozen=True)
class Source:
    """Clips to train on: a data set, how clips are drawn from it, and how often relative to the other sources."""

    data: VideoDataset
    clips: ClipSettings
    weight: float

    def count_rows(self) -> int | None:
        """Videos or images; None for a stream."""
        return len(self.data.rows) if isinstance(self.data.rows, Dataset) else None


def recipe_sources(recipe: Recipe, root: str | os.PathLike, skip_broken: bool = False) -> list[Source]:
    """
    The sources that a recipe names, in the folders that their archives unpack to (see [`find_split`]).

    Args:
        recipe: with `data.dataset`, whose classes the labels are, and `data.train`, a list of `{dataset, weight}` and
            maybe `clips` that differ from the recipe's own.
        root: the folder that holds the data sets' folders.
        skip_broken: leave out videos with faults in the annotation file.

    Raises:
        ValueError: the recipe names no data sets.
    """
    if not recipe.data.train:
        raise ValueError("the recipe names no data sets (data.train): expected --train-json or --train-parquet")
    sources = []
    for entry in recipe.data.train:
        annotations, images = find_split(entry.dataset, root)
        if entry.dataset == "coco":
            data = read_coco(annotations, images, target=recipe.data.dataset, skip_broken=skip_broken)
        else:
            data = read_ytvis(annotations, images, categories=entry.dataset, skip_broken=skip_broken)
        sources.append(Source(data, recipe.clips_of(entry), entry.weight))
    return ready(sources)


def own_source(
    recipe: Recipe, annotations: str | os.PathLike, images: str | os.PathLike, skip_broken: bool = False
) -> list[Source]:
    """A user's own data in YouTube-VIS's (or, for images, COCO's) form; its classes are the file's categories."""
    of_images = recipe.data.dataset == "coco"
    name = f"{Path(annotations).resolve().parent.name}-{Path(annotations).stem}"
    if of_images:
        data = read_coco(annotations, images, target=None, skip_broken=skip_broken, name=name)
    else:
        data = read_ytvis(annotations, images, skip_broken=skip_broken, name=name)
    return ready([Source(data, recipe.clips, 1.0)])


def parquet_source(recipe: Recipe, path_or_hub_id: str, streaming: bool = False) -> list[Source]:
    """The training split of what `scripts/prepare_dataset.py` wrote; its classes are stored with it."""
    data = read_parquet(path_or_hub_id, "train", streaming=streaming)
    return ready([Source(data, recipe.clips, 1.0)])


def make_clips(
    sources: list[Source], settings: TrainingSettings, skip_broken: bool = False
) -> ClipDataset | StreamedClips:
    """The clips of a training: mixed by weight from indexed sources, or from one stream."""
    if sources[0].count_rows() is None:
        return StreamedClips(sources[0].data.rows, sources[0].clips, settings.seed)
    rows = [source.data.rows for source in sources]
    schedule = SampleSchedule(
        [len(r) for r in rows], [s.weight for s in sources], settings.seed, settings.steps * settings.batch_size
    )
    return ClipDataset(rows, [source.clips for source in sources], schedule, skip_broken)


def ready(sources: list[Source]) -> list[Source]:
    """Leave out what has nothing to learn from, and check that all sources have the same classes."""
    for source in sources[1:]:
        if source.data.id2label != sources[0].data.id2label:
            raise ValueError(
                f"{source.data.name} and {sources[0].data.name} have different classes: "
                f"{list(source.data.id2label.values())[:5]}… and {list(sources[0].data.id2label.values())[:5]}…"
            )
    return [
        source  # a stream leaves them out as they come
        if source.count_rows() is None
        else replace(source, data=replace(source.data, rows=without_empty(source.data.rows)))
        for source in sources
    ]


__all__ = ["Source", "make_clips", "own_source", "parquet_source", "ready", "recipe_sources"]

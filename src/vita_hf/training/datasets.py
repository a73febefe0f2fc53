"""The training data: the datasets that the recipe names, or the user's own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..data.clips.schedule import ClipDataset, SampleSchedule
from ..data.clips.settings import ClipSettings
from ..data.clips.streamed import StreamedClips
from ..data.datasets import read_coco, read_ytvis
from ..data.layout import find_split
from ..data.parquet import read_parquet
from ..data.schema import VideoDataset, without_empty
from ..recipes import Recipe, TrainingSettings
from .options import TrainingOptions


@dataclass(frozen=True)
class Source:
    """
    A dataset that training clips come from.

    Attributes:
        data: The dataset.
        clips: How clips are drawn from it.
        weight: How often a clip comes from this source, relative to the others.
    """

    data: VideoDataset
    clips: ClipSettings
    weight: float = 1.0

    @property
    def num_rows(self) -> int | None:
        """Number of videos or images; None for a stream."""
        return len(self.data.rows) if isinstance(self.data.rows, Dataset) else None


def read_sources(recipe: Recipe, options: TrainingOptions) -> list[Source]:
    """
    Read the datasets to train on, without the videos that have no object to learn from.

    The user's own annotations bring their own classes: a json in YouTube-VIS format (COCO form for a recipe of images),
    or Parquet files from `scripts/prepare_dataset.py`.

    Raises:
        ValueError: if there is nothing to read, annotations are broken, or the classes of two datasets differ.
        OSError: if files are missing.
    """
    reading: dict[str, Any] = {"skip_broken": options.skip_broken, "follow_links": options.follow_links}
    if options.train_parquet is not None:
        sources = [Source(read_parquet(options.train_parquet, "train", streaming=options.streaming), recipe.clips)]
    elif options.train_json is not None and options.train_images is not None:
        sources = [_own_source(recipe, options.train_json, options.train_images, **reading)]
    elif options.data_root is not None:
        sources = _recipe_sources(recipe, options.data_root, **reading)
    else:
        raise ValueError("expected --data-root, --train-json with --train-images, or --train-parquet")
    first = sources[0].data
    for source in sources[1:]:
        if source.data.id2label != first.id2label:
            raise ValueError(
                f"{source.data.name} and {first.name} have different classes: "
                f"{list(source.data.id2label.values())[:5]}… and {list(first.id2label.values())[:5]}…"
            )
    return [_without_empty(source) for source in sources]


def _without_empty(source: Source) -> Source:
    rows = source.data.rows
    if not isinstance(rows, Dataset):  # `stream_rows` leaves them out of a stream
        return source
    return replace(source, data=replace(source.data, rows=without_empty(rows)))


def _own_source(recipe: Recipe, annotations: Path, images: Path, **reading: Any) -> Source:
    name = f"{annotations.resolve().parent.name}-{annotations.stem}"
    if recipe.data.dataset == "coco":
        data = read_coco(annotations, images, target=None, name=name, **reading)
    else:
        data = read_ytvis(annotations, images, name=name, **reading)
    return Source(data, recipe.clips)


def _recipe_sources(recipe: Recipe, root: Path, **reading: Any) -> list[Source]:
    if not recipe.data.train:
        raise ValueError("the recipe names no datasets (data.train): expected --train-json or --train-parquet")
    sources = []
    for entry in recipe.data.train:
        annotations, images = find_split(entry.dataset, root)
        if entry.dataset == "coco":
            data = read_coco(annotations, images, target=recipe.data.dataset, **reading)
        else:
            data = read_ytvis(annotations, images, categories=entry.dataset, **reading)
        sources.append(Source(data, recipe.clips_of(entry), entry.weight))
    return sources


def make_clips(
    sources: list[Source], settings: TrainingSettings, skip_broken: bool = False
) -> ClipDataset | StreamedClips:
    """Make the clips of a training run: from one stream, or mixed by weight from datasets with an index."""
    rows: list[Any] = [source.data.rows for source in sources]
    if not isinstance(rows[0], Dataset):
        return StreamedClips(rows[0], sources[0].clips, settings.seed)
    schedule = SampleSchedule(
        [len(source_rows) for source_rows in rows],
        [source.weight for source in sources],
        settings.seed,
        settings.steps * settings.batch_size,
    )
    return ClipDataset(rows, [source.clips for source in sources], schedule, skip_broken)

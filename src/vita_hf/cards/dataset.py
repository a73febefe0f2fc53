"""The card (README.md) of a data set in Parquet shards."""

import os
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Features
from huggingface_hub import DatasetCardData

from ..files import write_atomically

_CARD = """\
---
{metadata}
---

# {title}

Videos with instance masks for video instance segmentation, a row a video, written by `vita-hf`. The encoded images are
inside the Parquet files, unchanged.

| Split | Videos | Shards |
|---|---|---|
{splits}

| Column | |
|---|---|
| `video_id` | the annotation file's id of the video or image |
| `height`, `width` | of every frame, in pixels |
| `frames` | T encoded images |
| `instances` | objects: `id`, `label`, `iscrowd`, and `segmentations` with an entry a frame |

An entry of `segmentations` is null where the object is absent, else it has `rle`, the `counts` of a COCO run length of
[height, width], or `polygons`, lists of x0, y0, x1, y1, … in pixels.

{count} classes: {classes}.

## Use

```python
from ..data.parquet import read_parquet

dataset = read_parquet("{source}", split="{split}", streaming=True)
dataset.id2label  # the classes that the labels count
```

`datasets.load_dataset("{source}")` reads it too; the class names are in its features.
"""


def write_card(folder: str | os.PathLike, title: str, repo_id: str | None = None) -> Path:
    """
    Write the card of a folder that [`parquet.write_parquet`] filled, with all splits that are in it.

    Args:
        folder: the folder.
        title: the data set's name.
        repo_id: its id on the Hub, if it goes there.
    """
    folder = Path(folder)
    shards: dict[str, list[Path]] = {}
    for path in sorted(Path(folder, "data").glob("*-of-*.parquet")):
        shards.setdefault(path.name.rsplit("-", 3)[0], []).append(path)
    shards = dict(sorted(shards.items(), key=lambda item: (item[0] != "train", item[0])))
    counts = {split: sum(pq.read_metadata(path).num_rows for path in paths) for split, paths in shards.items()}
    first = next(iter(shards.values()))[0]
    names = Features.from_arrow_schema(pq.read_schema(first))["instances"].feature["label"].names
    files = [{"split": split, "path": f"data/{split}-*"} for split in shards]
    metadata = DatasetCardData(
        pretty_name=title,
        task_categories=["image-segmentation"],  # the Hub has none for videos
        tags=["video-instance-segmentation", "vita-hf"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    text = _CARD.format(
        metadata=metadata.to_yaml(),
        title=title,
        splits="\n".join(f"| {split} | {counts[split]} | {len(paths)} |" for split, paths in shards.items()),
        count=len(names),
        classes=", ".join(names),
        source=repo_id or folder.resolve().name,
        split=next(iter(shards)),
    )
    write_atomically(folder / "README.md", text.encode())
    return folder / "README.md"


__all__ = ["write_card"]

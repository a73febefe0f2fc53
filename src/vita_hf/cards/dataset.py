"""The card (README.md) of a dataset in Parquet shards."""

import os
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Features
from huggingface_hub import DatasetCard, DatasetCardData

from ..files import write_atomically

_TEMPLATE = Path(__file__).with_name("templates") / "dataset.md"


def write_card(folder: str | os.PathLike, title: str, repo_id: str | None = None) -> Path:
    """
    Write the card of a folder that [`data.parquet.write_parquet`] filled, with all of its splits.

    Args:
        folder: The folder.
        title: Name of the dataset.
        repo_id: Id of the dataset on the Hub, if it goes there.

    Returns:
        The path of the card.
    """
    folder = Path(folder)
    shards: dict[str, list[Path]] = {}
    for path in sorted(Path(folder, "data").glob("*-of-*.parquet")):
        shards.setdefault(path.name.rsplit("-", 3)[0], []).append(path)
    splits = sorted(shards, key=lambda split: (split != "train", split))
    schema = pq.read_schema(shards[splits[0]][0])
    card = DatasetCard.from_template(
        DatasetCardData(
            pretty_name=title,
            task_categories=["image-segmentation"],  # the Hub has no task for videos
            tags=["video-instance-segmentation", "vita-hf"],
            configs=[
                {
                    "config_name": "default",
                    "data_files": [{"split": split, "path": f"data/{split}-*"} for split in splits],
                }
            ],
        ),
        template_path=str(_TEMPLATE),
        title=title,
        splits={split: [pq.read_metadata(path).num_rows for path in shards[split]] for split in splits},
        classes=Features.from_arrow_schema(schema)["instances"].feature["label"].names,
        source=repo_id or folder.resolve().name,
    )
    write_atomically(folder / "README.md", f"{card}\n".encode())
    return folder / "README.md"

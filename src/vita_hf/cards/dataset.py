"""The card (README.md) of a dataset in Parquet shards."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from huggingface_hub import DatasetCard, DatasetCardData

from ..files import write_atomically
from .model import TEMPLATES


def write_card(folder: str | os.PathLike, title: str, repo_id: str | None = None) -> Path:
    """
    Write the card of a folder that [`data.parquet.write_parquet`] filled, with all of its splits, and return its path.

    Args:
        folder: The folder.
        title: Name of the dataset.
        repo_id: Id of the dataset on the Hub, if it goes there.

    Raises:
        ValueError: if a shard is damaged.
    """
    folder = Path(folder)
    shards: dict[str, list[Path]] = {}
    for path in sorted(Path(folder, "data").glob("[!.]*-of-*.parquet")):
        shards.setdefault(path.name.rsplit("-", 3)[0], []).append(path)
    splits = sorted(shards, key=lambda split: (split != "train", split))
    data_files = [{"split": split, "path": f"data/{split}-*"} for split in splits]
    metadata = {split: [_read_metadata(path) for path in shards[split]] for split in splits}
    features = Features.from_arrow_schema(metadata[splits[0]][0].schema.to_arrow_schema())
    card = DatasetCard.from_template(
        DatasetCardData(
            pretty_name=title,
            task_categories=["image-segmentation"],  # the Hub has no task for videos
            tags=["video-instance-segmentation", "vita-hf"],
            configs=[{"config_name": "default", "data_files": data_files}],
        ),
        template_path=str(TEMPLATES / "dataset.md"),
        title=title,
        splits={split: [shard.num_rows for shard in metadata[split]] for split in splits},
        classes=features["instances"].feature["label"].names,
        source=repo_id or folder.resolve().name,
    )
    write_atomically(folder / "README.md", f"{card}\n".encode())
    return folder / "README.md"


def _read_metadata(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to make it again") from error

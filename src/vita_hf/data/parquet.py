"""Datasets as Parquet shards with embedded images, for the Hub and for streaming."""

import hashlib
import os
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, IterableDataset, load_dataset
from datasets.table import embed_table_storage

from ..files import RunRecord, atomic_path, output_name, remove_leftovers
from ..progress import progress_bar
from .frames import BrokenSampleError, decode_frame
from .schema import NOT_EMBEDDED, SCHEMA_VERSION, VIDEO_FEATURES, VideoDataset

_ROW_GROUP_BYTES = 32_000_000  # streaming reads one row group at a time


def write_parquet(
    dataset: VideoDataset, output: str | os.PathLike, split: str = "train", shard_bytes: int = 500_000_000
) -> list[Path]:
    """
    Write a dataset to `output/data/{split}-00000-of-0000n.parquet`, with the image files embedded unchanged.

    Every image is decoded before it is embedded, so that no other file gets into a shard. Each shard is written
    atomically. After an interruption, the same call continues with the first missing shard. The same dataset gives the
    same shards, byte for byte.

    Args:
        dataset: A dataset that is not streamed.
        output: Folder of the dataset; may hold other splits.
        split: Name of the split.
        shard_bytes: Approximate size of the images in a shard.

    Raises:
        FileNotFoundError: if frames are missing (before anything is written); the message names up to five.
        FileExistsError: if the folder holds shards of this split made from other data, or a card that is not ours.
        ValueError: if the dataset is streamed, a frame is no image, the split's name has other characters than
            letters, digits, underscores and dots, or the folder holds another split with other classes.

    Example:
    ```python
    >>> import tempfile
    >>> from vita_hf.data import datasets, parquet, synthetic

    >>> file = synthetic.write_synthetic_dataset(tempfile.mkdtemp(), seed=0, videos=1, length=2)
    >>> dataset = datasets.read_ytvis(file, file.parent / "JPEGImages", cache_dir=file.parent)
    >>> [shard.name for shard in parquet.write_parquet(dataset, file.parent)]
    ['train-00000-of-00001.parquet']
    >>> parquet.read_parquet(file.parent, streaming=True).id2label == dataset.id2label
    True

    ```
    """
    rows, output = dataset.rows, Path(output)
    if isinstance(rows, IterableDataset):
        raise ValueError(f"dataset {dataset.name}: expected rows that are not streamed")
    if output_name(split) != split or not re.fullmatch(r"\w+(\.\w+)*", split):  # as `datasets` names splits
        raise ValueError(f"split: expected a name of letters, digits, underscores and dots, got {split!r}")
    sizes = _image_bytes(rows)
    bounds = _partition(sizes, shard_bytes)
    classes = [*dataset.id2label.values()]
    inputs = {"rows": _digest(rows), "bounds": bounds, "schema_version": SCHEMA_VERSION, "classes": classes}
    shards = [output / "data" / f"{split}-{i:05d}-of-{len(bounds):05d}.parquet" for i in range(len(bounds))]
    _start(output, split, inputs, shards)
    features = VIDEO_FEATURES.copy()
    features["instances"].feature["label"] = ClassLabel(names=classes)  # integers that the Hub shows by name
    bar = progress_bar(shards, description=f"writing {split}", total=len(shards), unit="shard", shown=True)
    for shard, (first, last) in zip(bar, bounds):
        if not shard.is_file():
            with atomic_path(shard) as temporary:
                _write_shard(temporary, rows.select(range(first, last)), sizes[first:last], features.arrow_schema)
    return shards


def _start(output: Path, split: str, inputs: dict[str, Any], shards: list[Path]) -> None:
    """Write the record of a split, unless the folder has it; refuse a folder that holds something else."""
    records = list(output.glob(".prepare-*.json"))
    found = _list_shards(output / "data", split) + shards
    files = [str(shard.relative_to(output)) for shard in found] + ([] if records else ["README.md"])
    record = RunRecord(output / f".prepare-{split}.json", inputs)
    if not record.matches_or_is_new(files):
        for other in records:
            if RunRecord(other, inputs, free=("rows", "bounds", "schema_version")).changes():
                raise ValueError(f"{output} holds a split with other classes ({other.name}); choose another folder")
        record.write()
    remove_leftovers(output / "data")


def read_parquet(
    path_or_hub_id: str | os.PathLike,
    split: str = "train",
    streaming: bool = False,
    cache_dir: str | os.PathLike | None = None,
) -> VideoDataset:
    """
    Read a dataset that [`write_parquet`] wrote.

    Args:
        path_or_hub_id: The folder, or the dataset's id on the Hub.
        split: Name of the split.
        streaming: Whether to read rows when they are needed. Otherwise they are copied into Arrow files in the cache.
        cache_dir: The cache; by default that of `datasets`.

    Raises:
        FileNotFoundError: if the folder lacks the split or some of its shards.
        ValueError: if the data has other columns, lacks class names, or names files instead of embedding them.
    """
    options: dict[str, Any] = {"split": split, "cache_dir": None if cache_dir is None else os.fspath(cache_dir)}
    if os.path.isdir(path_or_hub_id):
        options |= {"path": "parquet", "data_files": {split: _find_shards(Path(path_or_hub_id, "data"), split)}}
    else:
        options["path"] = os.fspath(path_or_hub_id)
    stream = load_dataset(**options, streaming=True)  # reads only the schema
    features = stream.features
    if features is None or features.arrow_schema != VIDEO_FEATURES.arrow_schema:
        raise ValueError(f"{path_or_hub_id}: expected columns {VIDEO_FEATURES}, got {features}")
    label = features["instances"].feature["label"]
    if not isinstance(label, ClassLabel):
        raise ValueError(f"{path_or_hub_id}: expected class names, a ClassLabel at instances.label, got {label}")
    rows = stream.cast(VIDEO_FEATURES) if streaming else load_dataset(**options, features=VIDEO_FEATURES)
    if isinstance(rows, Dataset):  # of a stream, each row is checked when it is read
        for table in rows.select_columns("frames").with_format("arrow").iter(batch_size=1000):
            if any(chunk.flatten().field("bytes").null_count for chunk in table["frames"].chunks):
                raise ValueError(f"{path_or_hub_id}: {NOT_EMBEDDED}")
    return VideoDataset(rows, dict(enumerate(label.names)), Path(path_or_hub_id).name)


def _list_shards(folder: Path, split: str) -> list[Path]:
    return sorted(folder.glob(f"{split}-{'[0-9]' * 5}-of-{'[0-9]' * 5}.parquet"))


def _find_shards(folder: Path, split: str) -> list[str]:
    shards = _list_shards(folder, split)
    if not shards:
        raise FileNotFoundError(f"no shards {split}-*-of-*.parquet in {folder}")
    expected = int(shards[0].stem.rsplit("-of-", 1)[1])
    if len(shards) != expected:
        raise FileNotFoundError(f"{folder} has {len(shards)} of {expected} shards of {split}")
    return [str(shard) for shard in shards]


def _write_shard(path: Path, rows: Dataset, sizes: Sequence[int], schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for first, last in _partition(sizes, _ROW_GROUP_BYTES):
            selected = rows.select(range(first, last))
            _check_frames(selected)
            table = selected.with_format("arrow")[:].replace_schema_metadata(schema.metadata)
            writer.write_table(embed_table_storage(table))


def _check_frames(rows: Dataset) -> None:
    """Check that all frames are images. One whose size differs from its video's passes; training refuses it."""

    def check(place: tuple[dict[str, Any], dict[str, Any]]) -> None:
        try:
            decode_frame(*place)
        except BrokenSampleError as error:
            if error.kind != "frame-size":
                raise

    with ThreadPoolExecutor() as pool:
        frames = ((frame, row) for row in rows.remove_columns("instances") for frame in row["frames"])
        deque(pool.map(check, frames), maxlen=0)


def _image_bytes(rows: Dataset) -> list[int]:
    """Return the size of each row's images in bytes."""
    sizes, missing = [], []
    for row in rows.select_columns(["video_id", "frames"]):
        total = 0
        for frame in row["frames"]:
            if frame["bytes"] is not None:
                total += len(frame["bytes"])
            elif os.path.isfile(frame["path"]):
                total += os.path.getsize(frame["path"])
            else:
                missing.append(f"{frame['path']} (video {row['video_id']})")
        sizes.append(total)
    if missing:
        raise FileNotFoundError(f"{len(missing)} frames are missing, for example {', '.join(missing[:5])}")
    return sizes


def _partition(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Cut rows into parts [first, last) of at most `limit` bytes, but at least one row."""
    parts, first, total = [], 0, 0
    for row, size in enumerate(sizes):
        if row > first and total + size > limit:
            parts.append([first, row])
            first, total = row, 0
        total += size
    return [*parts, [first, len(sizes)]]


def _digest(rows: Dataset) -> str:
    digest = hashlib.sha256()
    for table in rows.with_format("arrow").iter(batch_size=1000):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()

"""Data sets as Parquet shards with the encoded images inside: for the Hub, and for streaming."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, load_dataset
from datasets.table import embed_table_storage
from tqdm.auto import tqdm

from ..files import atomic_path, write_atomically
from .schema import SCHEMA_VERSION, VIDEO_FEATURES, VideoDataset

logger = logging.getLogger(__name__)

_ROW_GROUP_BYTES = 32_000_000  # read at once when streaming


def named_features(id2label: dict[int, str]) -> Features:
    """[`VIDEO_FEATURES`] with the class names in it: stored the same, shown by name on the Hub."""
    features = VIDEO_FEATURES.copy()
    features["instances"].feature["label"] = ClassLabel(names=[id2label[label] for label in range(len(id2label))])
    return features


def write_parquet(
    dataset: VideoDataset, output: str | os.PathLike, split: str = "train", shard_bytes: int = 500_000_000
) -> list[Path]:
    """
    Write `output/data/{split}-00000-of-0000n.parquet`, images embedded as they are, class names in the schema.

    Each shard is whole or not there. Called again after an interruption, it goes on with the first shard that is
    missing. The same data give the same shards.

    Args:
        dataset: not a streamed one.
        output: a folder for this data set; other splits may be in it already.
        split: its name.
        shard_bytes: of images in a shard, about.

    Returns:
        The shards.

    Raises:
        FileNotFoundError: frames are missing (before anything is written); names up to five.
        ValueError: the folder holds shards of other data, or another split with other classes.
    """
    rows, output = dataset.rows, Path(output)
    sizes = _image_bytes(rows)
    bounds = _shard_bounds(sizes, shard_bytes)
    features = named_features(dataset.id2label)
    plan = {"rows": _digest(rows), "bounds": bounds, "schema_version": SCHEMA_VERSION}
    plan["classes"] = [*dataset.id2label.values()]
    _check_plan(output, split, plan)
    shards = [output / "data" / f"{split}-{i:05d}-of-{len(bounds):05d}.parquet" for i in range(len(bounds))]
    done = [shard.is_file() for shard in shards]
    if any(done):
        logger.info("%d of %d shards are there already", sum(done), len(shards))
    with tqdm(total=len(rows), unit="row", desc=f"writing {split}") as bar:
        for shard, (first, last), is_done in zip(shards, bounds, done):
            if is_done:
                bar.update(last - first)
                continue
            with atomic_path(shard) as temporary:
                with pq.ParquetWriter(temporary, features.arrow_schema, use_dictionary=False) as writer:
                    for begin, end in _row_groups(sizes, first, last):
                        table = embed_table_storage(_arrow(rows, begin, end))
                        writer.write_table(pa.table(table.columns, schema=features.arrow_schema))
                        bar.update(end - begin)
    return shards


def read_parquet(
    path_or_hub_id: str | os.PathLike,
    split: str = "train",
    streaming: bool = False,
    cache_dir: str | os.PathLike | None = None,
    name: str | None = None,
) -> VideoDataset:
    """
    Read what [`write_parquet`] wrote.

    Args:
        path_or_hub_id: the folder given to it, or the data set's id on the Hub.
        split: which one.
        streaming: rows come as an `IterableDataset`, read as they are needed. Otherwise they are copied into memory-
            mapped Arrow files in the cache.
        cache_dir: by default the cache of `datasets`.
        name: by default the folder's or the repository's name.

    Raises:
        FileNotFoundError: the folder has no such split.
        ValueError: the data are of another form, or lack class names.
    """
    options = {"split": split, "cache_dir": None if cache_dir is None else os.fspath(cache_dir)}
    if os.path.isdir(path_or_hub_id):
        shards = sorted(Path(path_or_hub_id, "data").glob(f"{split}-*-of-*.parquet"))
        if not shards:
            raise FileNotFoundError(f"no shards {split}-*-of-*.parquet in {Path(path_or_hub_id, 'data')}")
        expected = int(shards[0].stem.rsplit("-of-", 1)[1])
        if len(shards) != expected:
            raise FileNotFoundError(f"{shards[0].parent} has {len(shards)} of {expected} shards of {split}")
        source = {"path": "parquet", "data_files": {split: [str(shard) for shard in shards]}}
    else:
        source = {"path": os.fspath(path_or_hub_id)}
    stream = load_dataset(**source, **options, streaming=True)  # looks at the schema only
    found = stream.features
    if found is None or found.arrow_schema != VIDEO_FEATURES.arrow_schema:
        raise ValueError(f"{path_or_hub_id}: expected columns {VIDEO_FEATURES}, got {found}")
    label = found["instances"].feature["label"]
    if not isinstance(label, ClassLabel):
        raise ValueError(f"{path_or_hub_id}: expected class names, a ClassLabel at instances.label, got {label}")
    if streaming:
        rows = stream.cast(VIDEO_FEATURES)
    else:
        rows = load_dataset(**source, **options, features=VIDEO_FEATURES)
    name = name or Path(path_or_hub_id).name
    return VideoDataset(rows, dict(enumerate(label.names)), name)


def _arrow(rows: Dataset, first: int, last: int) -> pa.Table:
    table = rows.with_format("arrow")[first:last]
    return table.replace_schema_metadata(VIDEO_FEATURES.arrow_schema.metadata)


def _image_bytes(rows: Dataset) -> list[int]:
    """Bytes of each row's images."""
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


def _shard_bounds(sizes: list[int], shard_bytes: int) -> list[list[int]]:
    """First row and row after the last of each shard; every shard has a row."""
    bounds, first, held = [], 0, 0
    for row, size in enumerate(sizes):
        if row > first and held + size > shard_bytes:
            bounds.append([first, row])
            first, held = row, 0
        held += size
    return [*bounds, [first, len(sizes)]]


def _row_groups(sizes: list[int], first: int, last: int) -> Iterator[list[int]]:
    for begin, end in _shard_bounds(sizes[first:last], _ROW_GROUP_BYTES):
        yield [first + begin, first + end]


def _digest(rows: Dataset) -> str:
    digest = hashlib.sha256()
    for first in range(0, len(rows), 1000):
        table = _arrow(rows, first, min(first + 1000, len(rows)))
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


def _check_plan(output: Path, split: str, plan: dict) -> None:
    """Keeps what the shards are made of beside them, so that no shards of different data mix."""
    for other in output.glob(".prepare-*.json"):
        before = json.loads(other.read_text())
        if other.name == f".prepare-{split}.json" and before != plan:
            changed = ", ".join(key for key in plan if before.get(key) != plan[key])
            raise ValueError(
                f"{output} holds shards of {split} made of other data or in another way ({changed} differ): choose "
                "another folder or remove this one"
            )
        if before["classes"] != plan["classes"]:
            raise ValueError(f"{output}: the split of {other.name} has other classes; expected one data set a folder")
    write_atomically(output / f".prepare-{split}.json", json.dumps(plan).encode())


__all__ = ["named_features", "read_parquet", "write_parquet"]

"""Where the archives of known datasets unpack their annotations and images."""

import os
from pathlib import Path

# annotation file and image folder of a split, relative to the folder of all datasets
_LAYOUTS = {
    "ytvis2019": ("ytvis_2019/{split}.json", "ytvis_2019/{split}/JPEGImages"),
    "ytvis2021": ("ytvis_2021/{split}.json", "ytvis_2021/{split}/JPEGImages"),
    "ovis": ("ovis/annotations/{split}.json", "ovis/{split}"),
    "coco": ("coco/annotations/instances_{split}2017.json", "coco/{split}2017"),
}
_SPLITS = {"coco": ("train", "val")}


def find_split(dataset: str, root: str | os.PathLike, split: str = "train") -> tuple[Path, Path]:
    """
    Find the files of a dataset split in the folders that its archives unpack to.

    ```
    root/ytvis_2019/train.json             root/ytvis_2019/train/JPEGImages/     ytvis_2021 the same
    root/ovis/annotations/train.json       root/ovis/train/
    root/coco/annotations/instances_train2017.json    root/coco/train2017/
    ```

    Args:
        dataset: The dataset: "ytvis2019", "ytvis2021", "ovis" or "coco".
        root: The folder of all datasets, or the dataset's own folder.
        split: The split: "train", "valid" or "test"; for COCO "train" or "val".

    Returns:
        The annotation file, and the folder that its file names are relative to.

    Raises:
        ValueError: if the dataset or the split is unknown.
        FileNotFoundError: if the files are missing; the message names the paths that were tried.
    """
    if dataset not in _LAYOUTS:
        raise ValueError(f"dataset: expected one of {', '.join(_LAYOUTS)}, got {dataset!r}")
    splits = _SPLITS.get(dataset, ("train", "valid", "test"))
    if split not in splits:
        raise ValueError(f"split of {dataset}: expected one of {', '.join(splits)}, got {split!r}")
    annotations, images = (Path(part.format(split=split)) for part in _LAYOUTS[dataset])
    candidates = [
        (Path(root, annotations), Path(root, images)),
        (Path(root, *annotations.parts[1:]), Path(root, *images.parts[1:])),
    ]
    for file, folder in candidates:
        if file.is_file() and folder.is_dir():
            return file, folder
    tried = "\n".join(f"  {file} with {folder}/" for file, folder in candidates)
    raise FileNotFoundError(f"no {split} split of {dataset} below {root}; looked for\n{tried}")

"""YouTube-VIS 2019 and 2021, OVIS, and own data in their form."""

import os
from pathlib import Path

from .classes import ClassChoice
from .reading import read_cached
from .schema import VideoDataset

DATASETS = ("ytvis2019", "ytvis2021", "ovis")


def read_ytvis(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    *,
    categories: str | None = None,
    skip_broken: bool = False,
    cache_dir: str | os.PathLike | None = None,
    name: str | None = None,
) -> VideoDataset:
    """
    Read an annotation file in YouTube-VIS's form: a row a video.

    An object is in a frame if the file has both a box and a segmentation for it there. Annotations without `bboxes`
    count by their segmentations alone.

    Args:
        annotations: the json file: `videos`, `annotations`, `categories`.
        images: the folder that its `file_names` are relative to.
        categories: "ytvis2019", "ytvis2021" or "ovis": the data set's own classes, after a look whether the file's
            categories are these. `None`: the classes are the file's categories, by ascending id.
        skip_broken: leave out videos with faults and log how many, instead of stopping at the first.
        cache_dir: for the Arrow files; by default the cache of `datasets`.
        name: by default `categories`, or the file's name.

    Raises:
        FileNotFoundError: the file or the frames are not there.
        AnnotationError: a `ValueError` that names file, video and annotation, what was found and what was expected.
    """
    if categories is not None and categories not in DATASETS:
        raise ValueError(f"categories: expected one of {', '.join(DATASETS)} or None, got {categories!r}")
    choice = ClassChoice(dataset=categories)
    name = name or categories or Path(annotations).stem
    return read_cached(annotations, images, "ytvis", choice, skip_broken, cache_dir, name)


__all__ = ["read_ytvis"]

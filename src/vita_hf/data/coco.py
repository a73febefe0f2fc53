"""COCO instances, and own data in their form: an image is a video of one frame."""

import os
from pathlib import Path

from .categories import COCO_TO_DATASET
from .classes import ClassChoice
from .reading import read_cached
from .schema import VideoDataset


def read_coco(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    *,
    target: str | None = "coco",
    skip_broken: bool = False,
    cache_dir: str | os.PathLike | None = None,
    name: str | None = None,
) -> VideoDataset:
    """
    Read an annotation file in the form of COCO's instances: a row an image.

    Args:
        annotations: the json file: `images`, `annotations`, `categories`.
        images: the folder that its `file_name`s are relative to.
        target: whose classes the labels are. "coco": COCO's 80. "ytvis2019", "ytvis2021" or "ovis": the video data
            set's, after [`categories.COCO_TO_DATASET`]; annotations of other categories are dropped. `None`: the file's
            own categories, by ascending id.
        skip_broken: leave out images with faults and log how many, instead of stopping at the first.
        cache_dir: for the Arrow files; by default the cache of `datasets`.
        name: by default "coco", or the file's name for `target=None`.

    Raises:
        FileNotFoundError: the file or the images are not there.
        AnnotationError: a `ValueError` that names file, image and annotation, what was found and what was expected.
    """
    if target not in (None, "coco", *COCO_TO_DATASET):
        raise ValueError(f"target: expected None, 'coco' or one of {', '.join(COCO_TO_DATASET)}, got {target!r}")
    choice = ClassChoice(
        dataset=None if target is None else "coco",
        target=target if target in COCO_TO_DATASET else None,
    )
    name = name or ("coco" if target else Path(annotations).stem)
    return read_cached(annotations, images, "coco", choice, skip_broken, cache_dir, name)


__all__ = ["read_coco"]

"""Check a whole dataset, every mask and frame included."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from ..ops.rle import RleError, decode
from ..progress import progress_bar
from .annotations import AnnotationError, AnnotationFile, Problem, Video, read_annotations
from .classes import ClassChoice
from .frames import BrokenSampleError, decode_frame
from .rows import make_row
from .schema import has_objects

_BATCH = 1024  # frames that are handed to the threads at once


def check_annotations(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    *,
    form: str = "ytvis",
    dataset: str | None = None,
    follow_links: bool = False,
    progress: bool = True,
) -> list[Problem]:
    """
    Check a dataset: the annotation file, every mask and every frame.

    Problems with the severity "error" also stop the readers or training; warnings do not. See [`annotations.KINDS`].

    Args:
        annotations: The json file.
        images: The folder that its file names are relative to.
        form: "ytvis" or "coco".
        dataset: "ytvis2019", "ytvis2021", "ovis" or "coco": the dataset whose categories the file must have. None: any
            categories.
        follow_links: Accept frames that symbolic links in `images` lead out of that folder.
        progress: Whether to show a progress bar.

    Returns:
        All problems: first those of the file's tables, then those of the masks video by video, then those of the
        frames.

    Raises:
        FileNotFoundError: if there is no such file or folder.

    Example:
    ```python
    >>> import tempfile
    >>> from vita_hf.data.checking import check_annotations
    >>> from vita_hf.data.synthetic import write_synthetic_dataset

    >>> folder = write_synthetic_dataset(tempfile.mkdtemp() + "/data", seed=0, videos=1, length=2).parent
    >>> (folder / "JPEGImages" / "00000" / "00001.jpg").unlink()
    >>> for problem in check_annotations(folder / "annotations.json", folder / "JPEGImages", progress=False):
    ...     print(problem.severity, problem.kind, problem.frame_name)
    error frame-missing 00000/00001.jpg

    ```
    """
    if not os.path.isdir(images):
        raise FileNotFoundError(f"no such folder of frames: {images}")
    problems: list[Problem] = []
    try:
        file = read_annotations(annotations, form)
        problems += file.problems
        labels, _ = ClassChoice(dataset).resolve(file)
    except AnnotationError as error:
        return problems + error.problems
    problems += file.unknown_categories(labels)
    broken = {problem.video_id for problem in problems if problem.severity == "error"}
    rows = []
    for video in file.videos.values():
        if video.file_names:
            row, mask_problems = make_row(video, file, labels, os.fspath(images), follow_links)
            mask_problems += _check_masks(row, video, file)
            is_broken = video.id in broken or any(problem.severity == "error" for problem in mask_problems)
            if not has_objects(row) and not is_broken:
                message = "every annotated object is a crowd, or there is none: training leaves it out"
                mask_problems.append(Problem("no-annotations", message, file.path, video.entry, video.id))
            problems += mask_problems
            if len(row["frames"]) == video.length:  # otherwise, some lead out of the folder
                rows.append((row, video))
    return problems + list(_check_frames(rows, file, progress))


def _check_masks(row: dict[str, Any], video: Video, file: AnnotationFile) -> Iterator[Problem]:
    """Yield a problem for every RLE that cannot be decoded."""
    for annotation, instance in zip(video.annotations, row["instances"], strict=True):
        masks = {t: mask["rle"] for t, mask in enumerate(instance["segmentations"]) if mask and mask["rle"] is not None}
        try:
            decode(list(masks.values()), row["height"] * row["width"]) if masks else None
        except RleError as error:
            frames = list(masks)
            for index, message in error.problems.items():
                t = frames[index]
                place = (file.path, annotation.entry, video.id, annotation.id, t, video.file_names[t])
                yield Problem("rle-corrupt", message, *place)


def _check_frames(rows: list[tuple[dict, Video]], file: AnnotationFile, progress: bool) -> Iterator[Problem]:
    """Yield a problem for every frame that cannot be decoded."""

    def check(place: tuple[dict, Video, int]) -> Problem | None:
        row, video, t = place
        try:
            decode_frame({"path": row["frames"][t], "bytes": None}, row)
        except BrokenSampleError as error:
            message = f"{error.file}: {error.reason}"
            return Problem(error.kind, message, file.path, video.entry, video.id, None, t, video.file_names[t])
        return None

    places = ((row, video, t) for row, video in rows for t in range(video.length))
    total = sum(video.length for _, video in rows)
    bar = progress_bar(description="checking frames", total=total, unit="frame", shown=progress)
    with ThreadPoolExecutor() as pool, bar:
        while batch := list(islice(places, _BATCH)):
            for problem in pool.map(check, batch):
                bar.update()
                if problem is not None:
                    yield problem

"""Run a model over a dataset split, and score it, during and after training."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..data.annotations import InvalidInputError, load_json
from ..files import RunRecord, write_atomically
from ..image_processing_vita import VitaVideoProcessor
from ..inference.offline import segment_video
from ..inference.options import SegmentationOptions
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..ops.rle import shorten
from ..progress import progress_bar
from ..scoring import VisEvaluator
from ..scoring.coco import score_images
from ..video.images import image_size
from .splits import Clip, Split, match_categories

logger = logging.getLogger(__name__)

OUTPUTS = ("results.json", "scores.json", "submission.zip")  # what `vita-hf evaluate` writes


def segment_split(
    accelerator: Accelerator,
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    split: Split,
    folder: Path,
    top_k: int,
    inputs: Mapping[str, Any],
) -> Path:
    """
    Segment a split with all processes, and return the path of the `results.json` that the main process writes.

    All processes share the folder. Clips that have results there are skipped: an earlier run in the folder must have
    had the same `top_k` (predictions per clip) and `inputs` (what else the results depend on).

    Raises:
        FileExistsError: if the folder holds results of other inputs, or foreign files of the same names.
    """
    with accelerator.main_process_first():
        # Named by the clips' positions: an id of the annotation file may be anything.
        names = [f"parts/{index:06d}.json" for index in range(len(split.clips))]
        record = RunRecord(folder / "run.json", {**inputs, "top_k": top_k})
        if not record.matches_or_is_new((*OUTPUTS, *names)):
            record.write()
    category_ids = match_categories(model.config.id2label or {}, split.categories)
    parts = [folder / name for name in names]
    share = list(zip(split.clips, parts))[accelerator.process_index :: accelerator.num_processes]
    unfinished = [(clip, part) for clip, part in share if not part.is_file()]
    bar = {"description": "segmenting", "total": len(unfinished), "unit": "clip"}
    for clip, part in progress_bar(unfinished, **bar, shown=accelerator.is_main_process):
        entries = segment_clip(model, processor, clip, split, top_k, category_ids)
        write_atomically(part, json.dumps(entries).encode())
    accelerator.wait_for_everyone()
    results = folder / "results.json"
    if accelerator.is_main_process:
        entries = [entry for part in parts for entry in _read_part(part)]
        write_atomically(results, json.dumps(entries).encode())
    return results


def _read_part(part: Path) -> list[dict[str, Any]]:
    entries = load_json(part, InvalidInputError)
    if not isinstance(entries, list):
        raise ValueError(f"{part}: expected a list of predictions, got {shorten(entries)}; remove it to make it again")
    return entries


def segment_clip(
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    clip: Clip,
    split: Split,
    top_k: int,
    category_ids: Mapping[int, Any],
) -> list[dict[str, Any]]:
    """
    Segment a clip by the paper's rule for metrics: the `top_k` best pairs of a query and a class.

    `category_ids` holds the category of each of the model's labels, see [`match_categories`].

    Returns:
        Entries of a `results.json`, in YouTube-VIS format or, if the split consists of images, in COCO format.

    Raises:
        ValueError: if the frames do not have the size in the annotation file.
    """
    size = image_size(clip.frames[0])
    if size != tuple(clip.size):
        raise ValueError(
            f"{clip.frames[0].parent}: according to {split.path} the frames are {clip.size[0]}×{clip.size[1]}, but "
            f"they are {size[0]}×{size[1]}"
        )
    options = SegmentationOptions.for_scoring(top_k)
    tracks = segment_video(model, processor, clip.frames, options, name=f"video {clip.id}")
    results = tracks.to_ytvis(clip.id, category_ids)
    if split.of_images:
        for result in results:
            result["image_id"] = result.pop("video_id")
            result["segmentation"] = result.pop("segmentations")[0]
    return results


def evaluate_split(
    accelerator: Accelerator,
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    split: Split,
    folder: Path,
) -> dict[str, Any]:
    """
    Segment and score an annotated split, with the model's `evaluation_top_k` predictions per clip.

    The arguments are those of [`segment_split`], but earlier results in `folder` are removed.

    Returns:
        The scores (AP, AP50, …, `per_category`) in the main process, an empty dict in the others.
    """
    if accelerator.is_main_process:
        _remove_results(folder)  # an interrupted evaluation may be of other weights
    accelerator.wait_for_everyone()
    top_k, inputs = model.config.evaluation_top_k, {"annotations": str(split.path)}
    results = segment_split(accelerator, model, processor, split, folder, top_k, inputs)
    scores: dict[str, Any] = {}
    if accelerator.is_main_process:
        if split.of_images:
            scores = score_images(split.path, results)
        else:
            evaluator = VisEvaluator(split.path)
            evaluator.add(results)
            scores = evaluator.compute()
        _remove_parts(folder)
        if scores["AP"] >= 0:  # otherwise a warning tells why there is nothing to score
            names = ("AP", "AP50", "AP75")
            logger.info("AP %.4f, AP50 %.4f, AP75 %.4f on %s", *(scores[name] for name in names), split.path)
    accelerator.wait_for_everyone()
    return scores


def _remove_results(folder: Path) -> None:
    _remove_parts(folder)
    for name in ("results.json", "run.json"):
        (folder / name).unlink(missing_ok=True)


def _remove_parts(folder: Path) -> None:
    for part in (folder / "parts").glob("[0-9]" * 6 + ".json"):
        part.unlink()
    with suppress(OSError):  # it does not exist, or holds something else
        (folder / "parts").rmdir()

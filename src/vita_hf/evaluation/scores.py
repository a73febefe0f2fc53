"""Scores during and after a training."""

import logging
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..image_processing_vita import VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..scoring import VisEvaluator
from .splits import ResultStore, Split, score_images, segment_split, write_results

logger = logging.getLogger(__name__)


def evaluate_split(
    accelerator: Accelerator,
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    split: Split,
    folder: Path,
    top_k: int,
) -> dict[str, Any]:
    """
    Segment a split on all processes and score it.

    Args:
        folder: for `results.json`; shared by all processes, and emptied first.
        top_k: predictions a video.

    Returns:
        The metric's scores (AP, AP50, …, `per_category`) in the main process, an empty dict in the others.
    """
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted evaluation's, maybe of other weights
    accelerator.wait_for_everyone()
    with accelerator.main_process_first():
        store = ResultStore(folder, {"annotations": str(split.path), "top_k": top_k})
    segment_split(model, processor, split, store, top_k, accelerator.process_index, accelerator.num_processes)
    accelerator.wait_for_everyone()
    scores: dict[str, Any] = {}
    if accelerator.is_main_process:
        results = write_results(store.collect(split.clips), folder, zipped=False)
        if split.of_images:
            scores = score_images(split.path, results)
        else:
            evaluator = VisEvaluator(split.path)
            evaluator.add(results)
            scores = evaluator.compute()
        shutil.rmtree(store.parts)
        logger.info("AP %.4f, AP50 %.4f, AP75 %.4f on %s", *(scores[k] for k in ("AP", "AP50", "AP75")), split.path)
    accelerator.wait_for_everyone()
    return scores


__all__ = ["evaluate_split"]

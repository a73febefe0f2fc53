"""Scores of a model on a dataset split, during and after a training."""

import logging
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..image_processing_vita import VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..scoring import VisEvaluator
from ..scoring.coco import score_images
from .results import ResultStore, write_results
from .run import segment_split
from .splits import Split

logger = logging.getLogger(__name__)


def evaluate_split(
    accelerator: Accelerator,
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    split: Split,
    folder: Path,
) -> dict[str, Any]:
    """
    Segment a split with all processes and score it, with the model's `evaluation_top_k` predictions per clip.

    Args:
        accelerator: The processes.
        model: The model, in evaluation mode.
        processor: Its processor.
        split: An annotated split.
        folder: Where to write `results.json`. All processes share it; earlier content is removed.

    Returns:
        The scores (AP, AP50, …, `per_category`) in the main process, an empty dict in the others.
    """
    top_k = model.config.evaluation_top_k
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted evaluation may be of other weights
    accelerator.wait_for_everyone()
    with accelerator.main_process_first():
        store = ResultStore(folder, {"annotations": str(split.path), "top_k": top_k})
    segment_split(model, processor, split, store, top_k, accelerator.process_index, accelerator.num_processes)
    accelerator.wait_for_everyone()
    scores: dict[str, Any] = {}
    if accelerator.is_main_process:
        results = write_results(store.collect(split.clips), folder)
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

"""Run a model over a dataset split."""

from typing import Any

from tqdm.auto import tqdm

from ..image_processing_vita import VitaVideoProcessor
from ..inference.offline import segment_video
from ..inference.options import SegmentationOptions
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..video.images import image_size
from .results import ResultStore
from .splits import Clip, Split, match_categories


def segment_split(
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    split: Split,
    store: ResultStore,
    top_k: int,
    process: int = 0,
    num_processes: int = 1,
) -> None:
    """
    Segment the clips of a split that have no results yet.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        split: The split.
        store: Where to look for results and keep new ones.
        top_k: Predictions per clip.
        process: Number of this process, from 0. It segments every `num_processes`-th clip.
        num_processes: Number of processes that share the split.
    """
    clips = [clip for clip in split.clips[process::num_processes] if not store.is_finished(clip)]
    for clip in tqdm(clips, desc="segmenting", unit="clip", disable=process != 0):
        store.save(clip, segment_clip(model, processor, clip, split, top_k))


def segment_clip(
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    clip: Clip,
    split: Split,
    top_k: int,
) -> list[dict[str, Any]]:
    """
    Segment a clip by the paper's rule for metrics: the best pairs of a query and a class.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        clip: A clip of `split`.
        split: The split, for its categories and its form.
        top_k: Number of predictions.

    Returns:
        Entries of a `results.json`, in YouTube-VIS form or, if the split consists of images, in COCO form.

    Raises:
        ValueError: if the frames do not have the size in the annotation file, or the model's classes are not the
            split's categories.
    """
    category_ids = match_categories(model.config.id2label or {}, split.categories)
    size = image_size(clip.frames[0])
    if size != tuple(clip.size):
        raise ValueError(
            f"{clip.frames[0].parent}: according to {split.path} the frames are {clip.size[0]}×{clip.size[1]}, but "
            f"they are {size[0]}×{size[1]}"
        )
    options = SegmentationOptions.for_scoring(top_k)
    tracks = segment_video(model, processor, clip.frames, options, name=f"video {clip.id}")
    results = tracks.to_ytvis(clip.id, category_ids)
    if not split.of_images:
        return results
    return [
        {
            "image_id": clip.id,
            "category_id": result["category_id"],
            "score": result["score"],
            "segmentation": result["segmentations"][0],
        }
        for result in results
    ]

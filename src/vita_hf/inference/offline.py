"""
Segment one video of any length in bounded memory.

The detector runs over chunks of frames while the next chunk is decoded. The object encoder and decoder run once, over
the frame queries of all frames. Masks are computed chunk by chunk and kept as RLE.
"""

import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..image_processing_vita import VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..progress import progress_bar
from ..text import short_name
from ..tracks.building import VideoInstancesBuilder
from ..tracks.instances import VideoInstances
from ..tracks.labels import label_indices
from ..video.batching import FrameChunk
from ..video.frame_source import FrameSource, Sampling, average_rate, sample_frames
from ..video.sources import open_video
from .mask_feature_stores import MaskFeatureStore, make_store
from .options import SegmentationOptions

# Limits of the masks that are computed at once: frames, and pixels over all frames and tracks (256 MiB of floats).
_MASK_FRAMES, _MASK_PIXELS = 5, 2**26

T = TypeVar("T")
Size = tuple[int, int]  # (height, width)


@torch.no_grad()
def segment_video(
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    video: Any,
    options: SegmentationOptions = SegmentationOptions(),  # noqa: B008 - it is frozen
    name: str | None = None,
) -> VideoInstances:
    """
    Segment a video of any length.

    Memory use grows with the length of the video only through the frame queries (100 KiB per frame for the released
    models), the result and, if kept in memory, the mask features.

    Args:
        model: A model in evaluation mode.
        processor: Its processor.
        video: Anything that [`~vita_hf.video.sources.open_video`] takes.
        options: The settings.
        name: The video's name in messages; by default its path.

    Returns:
        The tracks, best first, with masks of the original frames' size as compressed RLE.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the package of the decoder is missing.
        OSError: if an address cannot be reached, or there is no space left on disk.
        TypeError: if `video` is not a video.
        ValueError: if the model is in training mode, the video has no frames or cannot be decoded, an option does not
            fit the video, or the detector's output is not finite.

    Example:
    ```python
    >>> import numpy as np
    >>> from vita_hf.data.synthetic import SyntheticVideo
    >>> from vita_hf.inference.loading import SHIPPED_MODEL, load_model
    >>> from vita_hf.inference.offline import segment_video
    >>> from vita_hf.inference.options import SegmentationOptions

    >>> model, processor = load_model(SHIPPED_MODEL)
    >>> video = np.stack([image for image, _ in SyntheticVideo(2, 0, length=6)])
    >>> result = segment_video(model, processor, video, SegmentationOptions(stride=2))
    >>> result.num_frames, result.frame_indices, result.size
    (3, [0, 2, 4], (96, 128))

    ```
    """
    if model.training:
        raise ValueError("the model is in training mode, which changes results: call model.eval() first")
    label_indices(options.classes or (), model.config.id2label)  # fails before the video is opened
    decoder = options.decoder or processor.decoder
    source = open_video(video, name, decoder, frame_rate=options.frame_rate, strict=options.strict)
    source.check()
    sampling = sample_frames(source, options.fps, options.stride)
    with ExitStack() as stack:
        frame_queries, sizes, shown, store = _detect(model, processor, source, sampling, options, stack)
        video_states = model.model.associate(torch.cat(frame_queries)[None, None])["video_states"][-1][-1]
        num_frames = sum(map(len, frame_queries))
        del frame_queries
        instances = _build_instances(model, video_states, store, source, num_frames, sizes, options)
    return replace(instances, fps=average_rate(source, *shown), **_describe_frames(*shown))


def _describe_frames(indices: list[int], times: list[float | None]) -> dict[str, Any]:
    """Return the fields of the result that say which frames of the video it covers, and when they are shown."""
    return {
        "frame_indices": None if indices == list(range(len(indices))) else indices,
        "frame_times": None if None in times else times,
    }


def _detect(
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    source: FrameSource,
    sampling: Sampling | None,
    options: SegmentationOptions,
    stack: ExitStack,
) -> tuple[list[Tensor], tuple[Size, Size], tuple[list[int], list[float | None]], MaskFeatureStore]:
    """
    Run the detector over all frames.

    Returns:
        The frame queries (n, fQ, C) of each chunk; the frame size before padding and the original frame size; indices
        and times of the frames; and the mask features in a store, which `stack` closes.
    """
    frame_queries: list[Tensor] = []
    indices: list[int] = []
    times: list[float | None] = []
    store: MaskFeatureStore | None = None
    length = source.length if sampling is None else sampling.count(source)
    if length is not None and options.max_frames is not None:
        length = min(length, options.max_frames)
    read = partial(_read_chunks, model, processor, source, sampling, options)
    with closing(read()) as chunks, _frame_bar("detecting", source, length, options) as bar:
        for chunk in chunks:
            detected = model.model.detect(chunk.pixel_values)
            queries, features = detected["frame_states"][-1], detected["video_mask_features"]
            del detected
            if not queries.isfinite().all():
                raise ValueError(
                    f"{source.name}: the detector gives numbers that are not finite; either the model's weights "
                    f"are damaged or {str(model.dtype).removeprefix('torch.')} cannot hold its activations"
                )
            frame_queries.append(queries)
            if store is None:
                recompute = partial(_recompute_mask_features, model, read) if source.rereadable else None
                store = make_store(options.mask_features, features, length, recompute)
                stack.callback(store.close)
            store.append(features)
            sizes = chunk.frame_size, chunk.original_size
            indices += chunk.indices
            times += chunk.times
            del features, chunk
            bar.update(len(queries))
    assert store is not None  # the processor raises an error if there are no frames
    return frame_queries, sizes, (indices, times), store


def _recompute_mask_features(
    model: VitaForVideoInstanceSegmentation, read: Callable[[], Generator[FrameChunk]]
) -> Generator[Tensor]:
    """Run only the part of the detector that mask features come from."""
    with closing(read()) as chunks:
        for chunk in chunks:
            pixels = model.model.pixel_level_module(chunk.pixel_values)[1]
            yield model.model.video_mask_projection(pixels)


def _read_chunks(
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    source: FrameSource,
    sampling: Sampling | None,
    options: SegmentationOptions,
) -> Generator[FrameChunk]:
    """Yield chunks on the model's device and in its dtype, each prepared while its predecessor is used."""
    chunk_size = options.chunk_size or model.config.detector_chunk_size
    device = _compute_device(model)

    def prepare() -> Generator[FrameChunk]:
        for chunk in processor.iterate_chunks(source, chunk_size, sampling, options.max_frames):
            pixels = chunk.pixel_values.to(model.dtype)
            yield replace(chunk, pixel_values=pixels.pin_memory() if device.type == "cuda" else pixels)

    with closing(read_ahead(prepare())) as chunks:
        for chunk in chunks:
            yield replace(chunk, pixel_values=chunk.pixel_values.to(device, non_blocking=True))
            del chunk


def _compute_device(model: VitaForVideoInstanceSegmentation) -> torch.device:
    """Return the device that the model computes on. If weights are offloaded, only Accelerate's hook knows it."""
    device = getattr(getattr(model, "_hf_hook", None), "execution_device", None)
    return model.device if device is None else torch.device(device)


def read_ahead(items: Generator[T]) -> Generator[T]:
    """Run a generator in a thread, one item ahead of its consumer, and close it if the consumer stops early."""
    end = object()
    with closing(items), ThreadPoolExecutor(1, "vita-hf-read-ahead") as thread:
        upcoming: Future[Any] = thread.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(next, items, end)
            yield item
            del item  # before waiting for the next one


def _build_instances(
    model: VitaForVideoInstanceSegmentation,
    video_states: Tensor,
    store: MaskFeatureStore,
    source: FrameSource,
    num_frames: int,
    sizes: tuple[Size, Size],
    options: SegmentationOptions,
) -> VideoInstances:
    """Compute classes and masks from the video queries (1, vQ, C) and the mask features of all frames."""
    default_top_k = model.config.num_video_queries if options.one_label_per_query else model.config.evaluation_top_k
    builder = VideoInstancesBuilder(
        model.video_class_predictor(video_states)[0],
        model.video_mask_embedder(video_states)[0],
        frame_size=sizes[0],
        target_size=sizes[1],
        top_k=options.top_k or default_top_k,
        threshold=options.threshold,
        one_label_per_query=options.one_label_per_query,
        output_format="rle",
        classes=None if options.classes is None else label_indices(options.classes, model.config.id2label),
        id2label=model.config.id2label,  # ty: ignore[invalid-argument-type] - a config makes its keys int
        name=source.name,
    )
    with closing(store.chunks()) as chunks, _frame_bar("masks", source, num_frames, options) as bar:
        for features in chunks:
            for part in features.split(_frames_at_once(sizes[1], features.shape[-2:], len(builder.embeddings))):
                builder.add_frames(part)
            bar.update(len(features))
    return builder.build()


def _frames_at_once(target_size: Sequence[int], feature_size: Sequence[int], num_tracks: int) -> int:
    """Choose how many frames' masks to compute at once, so that their memory stays bounded."""
    pixels = max(math.prod(target_size), 16 * math.prod(feature_size))
    return max(1, min(_MASK_FRAMES, _MASK_PIXELS // (pixels * max(1, num_tracks))))


def _frame_bar(task: str, source: FrameSource, total: int | None, options: SegmentationOptions) -> tqdm:
    description = f"{short_name(source.name)}: {task}"
    return progress_bar(description=description, total=total, unit="frame", shown=options.progress)

"""
Segment one video of any length in bounded memory.

The detector runs over chunks of frames while the next chunk is decoded. The object encoder and decoder run once, over
the frame queries of all frames. Masks are computed chunk by chunk and kept as RLE.
"""

import math
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..image_processing_vita import VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..tracks.building import VideoInstancesBuilder
from ..tracks.instances import VideoInstances
from ..video.batching import FrameChunk
from ..video.frame_source import FrameSource, sample_frames
from ..video.sources import open_video
from .mask_feature_stores import MaskFeatureStore, check_rereadable, make_store
from .options import SegmentationOptions
from .read_ahead import read_ahead

# Limits of the masks that are computed at once: frames, and pixels over all frames and tracks (256 MiB of floats).
_MASK_FRAMES, _MASK_PIXELS = 5, 2**26


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

    Only the frame queries (100 KiB per frame for the released models), the result and, where they are kept in memory,
    the mask features grow with the length of the video.

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
        ValueError: if the video has no frames or cannot be decoded, an option does not fit the video, or the detector's
            output is not finite.

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
    frames = _PreparedFrames(model, processor, open_video(video, name, options.decoder or processor.decoder), options)
    with ExitStack() as stack:
        frame_queries, sizes, store = _detect(model, frames, options, stack)
        video_states = model.model.associate(torch.cat(frame_queries)[None, None]).video_states[-1][-1]
        num_frames = sum(map(len, frame_queries))
        del frame_queries
        builder = VideoInstancesBuilder(
            model.video_class_predictor(video_states)[0],
            model.video_mask_embedder(video_states)[0],
            frame_size=sizes[0],
            target_size=sizes[1],
            top_k=_top_k(model, options),
            threshold=options.threshold,
            one_label_per_query=options.one_label_per_query,
            output_format="rle",
            id2label=model.config.id2label,
        )
        with closing(store.chunks()) as chunks, _progress_bar("masks", num_frames, options.progress) as bar:
            for features in chunks:
                for part in features.split(_frames_at_once(sizes[1], features.shape[-2:], len(builder.embeddings))):
                    builder.add_frames(part)
                bar.update(len(features))
    return replace(builder.build(), frame_indices=frames.indices(num_frames), fps=frames.source.fps)


def _top_k(model: VitaForVideoInstanceSegmentation, options: SegmentationOptions) -> int:
    if options.top_k is not None:
        return options.top_k
    return model.config.num_video_queries if options.one_label_per_query else model.config.evaluation_top_k


def _detect(
    model: VitaForVideoInstanceSegmentation, frames: "_PreparedFrames", options: SegmentationOptions, stack: ExitStack
) -> tuple[list[Tensor], tuple[tuple[int, int], tuple[int, int]], MaskFeatureStore]:
    """
    Run the detector over all frames.

    Returns:
        Frame queries (n, fQ, C) of each chunk; the frame size before padding and the original frame size; and the mask
        features in a store, which `stack` closes.
    """
    frame_queries: list[Tensor] = []
    store: MaskFeatureStore | None = None
    recompute = partial(_recompute_mask_features, model, frames) if frames.source.rereadable else None
    with closing(frames.chunks("detecting", options.progress)) as chunks:
        for chunk in chunks:
            detected = model.model.detect(chunk.pixel_values)
            queries, features = detected.frame_states[-1], detected.video_mask_features
            del detected
            if not queries.isfinite().all():
                raise ValueError(
                    f"{frames.source.name}: the detector gives numbers that are not finite; either the model's weights "
                    f"are damaged or {str(model.dtype).removeprefix('torch.')} can't hold its activations"
                )
            frame_queries.append(queries)
            if store is None:
                store = make_store(options.mask_features, features, frames.num_frames, recompute)
                stack.callback(store.close)
            store.append(features)
            sizes = chunk.frame_size, chunk.original_size
            del features, chunk
    assert store is not None  # the processor raises an error if there are no frames
    return frame_queries, sizes, store


def _recompute_mask_features(model: VitaForVideoInstanceSegmentation, frames: "_PreparedFrames") -> Generator[Tensor]:
    """Run only the part of the detector that mask features come from."""
    with closing(frames.chunks(None, progress=False)) as chunks:
        for chunk in chunks:
            pixels = model.model.pixel_level_module(chunk.pixel_values)[1]
            yield model.model.video_mask_projection(pixels)


class _PreparedFrames:
    """
    The frames of a video that are to be used, prepared for the model chunk by chunk.

    Args:
        model: Gives device, dtype and the default size of chunks.
        processor: Resizes, normalises and pads the frames.
        source: The video.
        options: Choose the frames and the size of chunks.

    Raises:
        FileNotFoundError: if an image of a list is missing.
        ValueError: if the options do not fit the video, or images differ in size.
    """

    def __init__(
        self,
        model: VitaForVideoInstanceSegmentation,
        processor: VitaVideoProcessor,
        source: FrameSource,
        options: SegmentationOptions,
    ):
        check_rereadable(options.mask_features, source.rereadable)
        source.check()
        self.model = model
        self.processor = processor
        self.source = source
        self.sampling = sample_frames(source, options.fps, options.stride)
        self.max_frames = options.max_frames
        self.chunk_size = options.chunk_size or model.config.detector_chunk_size

    @property
    def num_frames(self) -> int | None:
        """Number of frames to be used, as far as the video tells its length."""
        length = self.source.length
        if length is not None and self.sampling is not None:
            length = self.sampling.count(length)
        return length if self.max_frames is None or length is None else min(length, self.max_frames)

    def indices(self, num_frames: int) -> list[int] | None:
        """Return the indices in the video of the first `num_frames` frames used; None if these are simply 0, 1, 2 …"""
        return None if self.sampling is None else [self.sampling[position] for position in range(num_frames)]

    def chunks(self, description: str | None, progress: bool | None) -> Generator[FrameChunk]:
        """Yield chunks on the model's device and in its dtype, each prepared while its predecessor is used."""
        with (
            closing(read_ahead(self._prepare())) as chunks,
            _progress_bar(description, self.num_frames, progress) as bar,
        ):
            for chunk in chunks:
                count = len(chunk.pixel_values)
                yield replace(chunk, pixel_values=chunk.pixel_values.to(self.model.device, non_blocking=True))
                del chunk
                bar.update(count)

    def _prepare(self) -> Generator[FrameChunk]:
        on_gpu = self.model.device.type == "cuda"
        for chunk in self.processor.iterate_chunks(self.source, self.chunk_size, self.sampling, self.max_frames):
            pixels = chunk.pixel_values.to(self.model.dtype)
            yield replace(chunk, pixel_values=pixels.pin_memory() if on_gpu else pixels)


def _frames_at_once(target_size: Sequence[int], feature_size: Sequence[int], num_tracks: int) -> int:
    """Choose how many frames' masks to compute at once, so that their memory stays bounded."""
    pixels = max(math.prod(target_size), 16 * math.prod(feature_size))
    return max(1, min(_MASK_FRAMES, _MASK_PIXELS // (pixels * max(1, num_tracks))))


def _progress_bar(description: str | None, total: int | None, progress: bool | None) -> tqdm:
    shown = sys.stderr.isatty() if progress is None else progress
    return tqdm(desc=description, total=total, unit="frame", disable=not shown, dynamic_ncols=True)


__all__ = ["segment_video"]

"""Segment one video of any length in bounded memory.

The detector runs over chunks of frames while the next chunk is decoded; the video part runs once over all frame
queries; masks are computed chunk by chunk and kept as run lengths.
"""

import queue
import sys
import threading
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..image_processing_vita import FrameChunk, VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..tracks.building import VideoInstancesBuilder
from ..tracks.instances import VideoInstances
from ..video.sources import EveryNth, FrameList, FrameSource, open_video
from .mask_feature_stores import MaskFeatures, MaskFeatureStore, Recompute, check_mode, make_store

# The mask decoder takes at most this many frames, and mask pixels over all frames and tracks (256 MiB of floats).
_MASK_FRAMES, _MASK_PIXELS = 5, 2**26


class VideoStream:
    """
    A video that was opened, and which of its frames are to be used. Can be iterated over as often as the video allows.

    Args:
        processor: Prepares the frames.
        video: A video file, folder, address, array, tensor, list of images or iterator of images.
        name: What messages call it; its path by default.
        fps: Use so many frames a second of the video; all if it has fewer. Needs a video that says how many it has.
        stride: Use every `stride`-th frame.
        max_frames: Use at most so many frames.
        decoder: For video files, "pyav" or "torchcodec"; the processor's setting by default.

    Raises:
        FileNotFoundError, ImportError, OSError, TypeError, ValueError: The video can't be opened, or an argument is
            unusable; says which.
    """

    def __init__(
        self,
        processor: VitaVideoProcessor,
        video: Any,
        name: str | None = None,
        fps: float | None = None,
        stride: int | None = None,
        max_frames: int | None = None,
        decoder: str | None = None,
    ):
        if fps is not None and stride is not None:
            raise ValueError("fps and stride both thin the video out: pass one of them")
        for argument, value in {"fps": fps, "stride": stride, "max_frames": max_frames}.items():
            if value is not None and not value > 0:
                raise ValueError(f"{argument} must be positive, got {value}")
        if stride is not None and stride != int(stride):
            raise ValueError(f"stride must be a whole number of frames, got {stride}")
        self.processor = processor
        name = name or (str(video) if isinstance(video, str | Path) else "the video")
        self.source: FrameSource = open_video(video, name, decoder or processor.decoder)
        self.name = self.source.name
        if isinstance(self.source, FrameList):
            self.source.check_files()
        if fps is not None:
            if self.source.fps is None:
                raise ValueError(f"{self.name} does not say how many frames a second it has: pass stride, not fps")
            rate, wanted = (Fraction(value).limit_denominator(1_000_000) for value in (self.source.fps, fps))
            stride = max(Fraction(1), rate / wanted)
        self.sampling = None if stride in (None, 1) else EveryNth(stride)
        self.max_frames = max_frames

    @property
    def num_frames(self) -> int | None:
        """How many frames will be used, as far as the video says how long it is; or None."""
        length = self.source.length
        if length is not None and self.sampling is not None:
            length = self.sampling.count(length)
        return length if self.max_frames is None or length is None else min(length, self.max_frames)

    def chunks(self, chunk_size: int) -> Generator[FrameChunk, None, None]:
        return self.processor.iterate_chunks(self.source, chunk_size, self.sampling, self.max_frames, self.name)


@torch.no_grad()
def segment_video(
    model: VitaForVideoInstanceSegmentation,
    stream: VideoStream,
    *,
    top_k: int | None = None,
    threshold: float = 0.3,
    one_label_per_query: bool = True,
    mask_features: MaskFeatures = "auto",
    chunk_size: int | None = None,
    progress: bool | None = None,
) -> VideoInstances:
    """
    Segment a video of any length.

    Beside the frame queries (100 KiB a frame for the released models) and the result, memory does not grow with the
    video's length, but for the mask features where they are kept in memory.

    Args:
        model: In evaluation mode.
        stream: The video.
        top_k: The most tracks; by default as many as the model can give, and 10 with `one_label_per_query=False`.
        threshold: Tracks with a lower score are dropped.
        one_label_per_query: True gives each track one label, its best; False ranks all pairs of a track and a label:
            the paper's rule for metrics and submissions.
        mask_features: Where mask features wait until masks can be computed: on the "device" as they are, on the "host"
            in half precision, on "disk" (the temporary folder) in half precision, or nowhere, to "recompute" them in a
            second pass over the video. Device and recompute give equal results, host and disk the same within half
            precision's rounding. "auto" takes the first of the four that has room, by the video's length and the free
            memory; "exact" takes device or else recompute.
        chunk_size: Frames that go through the detector at once; the model's `detector_chunk_size` by default. Bounds
            memory; does not change results.
        progress: Whether to show progress bars; by default on a terminal only.

    Returns:
        The tracks, best first, with masks of the original frames' size as run lengths.

    Raises:
        ValueError: An argument is unusable; the video has no frames or can't be decoded; the detector's output is not
            finite.
        OSError: No space is left on disk.
    """
    if top_k is None:
        top_k = model.config.num_video_queries if one_label_per_query else 10
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    chunk_size = chunk_size or model.config.detector_chunk_size
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    check_mode(mask_features, stream.source.rereadable)

    frame_queries: list[Tensor] = []
    store: MaskFeatureStore | None = None
    try:
        with closing(_load_chunks(model, stream, chunk_size, "detecting", progress)) as chunks:
            for chunk in chunks:
                detected = model.model.detect(chunk.pixel_values)
                queries, features = detected.frame_states[-1], detected.video_mask_features
                del detected
                if not queries.isfinite().all():
                    raise ValueError(
                        f"{stream.name}: the detector gives numbers that are not finite; either the model's weights "
                        f"are damaged or {str(model.dtype).removeprefix('torch.')} can't hold its activations"
                    )
                frame_queries.append(queries)
                if store is None:
                    recompute = _recompute(model, stream, chunk_size) if stream.source.rereadable else None
                    store = make_store(mask_features, features, stream.num_frames, recompute)
                store.append(features)
                sizes = chunk.frame_size, chunk.original_size
                del features, chunk
        video_states = model.model.associate(torch.cat(frame_queries)[None, None]).video_states[-1][-1]
        num_frames = sum(map(len, frame_queries))
        del frame_queries
        decoder = VideoInstancesBuilder(
            model.video_class_predictor(video_states)[0],
            model.video_mask_embedder(video_states)[0],
            frame_size=sizes[0],
            target_size=sizes[1],
            top_k=top_k,
            threshold=threshold,
            one_label_per_query=one_label_per_query,
            output_format="rle",
            id2label=model.config.id2label,
        )
        with closing(store.chunks()) as stored, _progress_bar("masks", num_frames, progress) as bar:
            for features in stored:
                for part in features.split(_frames_at_once(decoder, features)):
                    decoder.add_frames(part)
                bar.update(len(features))
    finally:
        if store is not None:
            store.close()
    indices = None if stream.sampling is None else [stream.sampling[position] for position in range(num_frames)]
    return replace(decoder.build(), frame_indices=indices, fps=stream.source.fps)


def _recompute(model: VitaForVideoInstanceSegmentation, stream: VideoStream, chunk_size: int) -> Recompute:
    """The mask features again: of the detector only what they come from."""

    def compute() -> Generator[Tensor, None, None]:
        with closing(_load_chunks(model, stream, chunk_size, None, progress=False)) as chunks:
            for chunk in chunks:
                pixels = model.model.pixel_level_module(chunk.pixel_values)[1]
                yield model.model.video_mask_projection(pixels)

    return compute


def _load_chunks(
    model: VitaForVideoInstanceSegmentation,
    stream: VideoStream,
    chunk_size: int,
    description: str | None,
    progress: bool | None,
) -> Generator[FrameChunk, None, None]:
    """Chunks on the model's device and in its dtype, each prepared while the one before it is used."""
    on_gpu = model.device.type == "cuda"

    def prepare() -> Generator[FrameChunk, None, None]:
        with closing(stream.chunks(chunk_size)) as chunks:
            for chunk in chunks:
                pixels = chunk.pixel_values.to(model.dtype)
                yield replace(chunk, pixel_values=pixels.pin_memory() if on_gpu else pixels)

    total = stream.num_frames
    with (
        closing(read_ahead(prepare())) as chunks,
        _progress_bar(description, total, progress) as bar,
    ):
        for chunk in chunks:
            count = len(chunk.pixel_values)
            yield replace(chunk, pixel_values=chunk.pixel_values.to(model.device, non_blocking=True))
            del chunk
            bar.update(count)


def read_ahead(items: Generator) -> Generator:
    """Run a generator in a thread, one item ahead of its use; ends with it, also when it is left early."""
    waiting: queue.Queue = queue.Queue(maxsize=1)
    left = threading.Event()

    def hand_over(item, error) -> None:
        while not left.is_set():
            try:
                return waiting.put((item, error), timeout=0.1)
            except queue.Full:
                pass

    def work() -> None:
        with closing(items):
            try:
                for item in items:
                    hand_over(item, None)
                    if left.is_set():
                        return
                    del item
                hand_over(None, StopIteration())
            except BaseException as error:
                hand_over(None, error)

    thread = threading.Thread(target=work, name="vita-hf-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
            del item
    finally:
        left.set()
        thread.join()


def _frames_at_once(decoder: VideoInstancesBuilder, features: Tensor) -> int:
    height, width = decoder.target_size
    pixels = max(height * width, 16 * features.shape[-2] * features.shape[-1])
    return max(1, min(_MASK_FRAMES, _MASK_PIXELS // (pixels * max(1, len(decoder.embeddings)))))


def _progress_bar(description: str | None, total: int | None, progress: bool | None) -> tqdm:
    shown = sys.stderr.isatty() if progress is None else progress
    return tqdm(desc=description, total=total, unit="frame", disable=not shown, dynamic_ncols=True)


__all__ = ["VideoStream", "read_ahead", "segment_video"]

"""Videos to tensors, outputs to instances."""

import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, make_batched_metadata

from .tracks.building import VideoInstancesBuilder
from .tracks.instances import VideoInstances
from .video.resizing import resize_output_size
from .video.sources import FrameSource, VideoReader, different_size, open_video, read_image, split_videos


class VitaVideoProcessorKwargs(VideosKwargs, total=False):
    """
    Settings of [`VitaVideoProcessor`] beside those that every video processor has.

    Attributes:
        size_divisor (`int`):
            Frames are padded at the right and the bottom to a multiple of this.
        padding (`bool`):
            Whether videos of different sizes may share a batch, padded to the largest height and width. This changes
            the results: the network has no padding mask, its position codes and group norms see the padding.
        decoder (`str`):
            What decodes video files, "pyav" or "torchcodec".
    """

    size_divisor: int
    padding: bool
    decoder: Literal["pyav", "torchcodec"]


@dataclass(frozen=True)
class FrameChunk:
    """
    Some frames of a video, ready for the network.

    Attributes:
        pixel_values: Float32 tensor (n, 3, H, W), normalised and padded.
        frame_size: (h, w) after resizing, before padding.
        original_size: (h, w) of the video itself.
    """

    pixel_values: torch.Tensor
    frame_size: tuple[int, int]
    original_size: tuple[int, int]


class VitaVideoProcessor(BaseVideoProcessor):
    r"""
    Turn videos into VITA's inputs, and VITA's outputs into instances.

    Frames are resized as uint8 (bilinear, antialiased) so that the shorter side is `size["shortest_edge"]` and the
    longer at most `size["longest_edge"]`, then rescaled, normalised with ImageNet's mean and standard deviation, and
    padded with zeros at the right and the bottom to a multiple of `size_divisor`. `size` may also be
    `{"height", "width"}`, regardless of the aspect ratio. The released models use a shorter side of 360 (ResNet) or
    448 (Swin). All settings may be given to the constructor or to a call.

    Args:
        videos:
            One video or a list of videos.

            - *A single image* is a path with an image's suffix, a PIL image, or an array or tensor with 2 (grey) or 3
              dimensions. A **list of images is one video**, and so is one image alone.
            - *A video* is a path to a video file, a path to a folder of frames (sorted by name, numbers as numbers), a
              4-dimensional array or tensor, or a list of images. A **list of videos is a batch**, and so is a
              5-dimensional array.

            Arrays are (…, H, W, C) or (…, C, H, W) with 1 (grey), 3 or 4 (RGB and alpha) channels. If both readings
            are possible, NumPy arrays are taken as channels last and tensors as channels first, unless
            `input_data_format` says otherwise. Grey is repeated, alpha dropped; with `do_convert_rgb=False`, frames
            that are not RGB are errors. Images are turned upright by their EXIF tag, video files by their rotation.

            Values are uint8, or floats: in [0, 255] as they are rescaled too, or already in [0, 1] with
            `do_rescale=False`. Tensors are processed where they are (or on `device`).
        do_sample_frames, num_frames, fps:
            With `do_sample_frames=True`, use `num_frames` frames evenly spread over the video, or `fps` frames a
            second (arrays and images: with `video_metadata` that says their `fps`).
        return_metadata:
            Also return `video_metadata`: a list of `VideoMetadata` with each video's original height and width, the
            frames used, and the frame rate where it is known.
        return_tensors:
            "pt" (also if None) or "np".

    Returns:
        `BatchFeature` with

        - **pixel_values_videos** float32 (B, T, 3, H, W): T is the longest video's length, H and W include padding.
        - **frame_sizes** int64 (B, 2): height and width after resizing, before padding.
        - **frame_mask** bool (B, T): True for a video's own frames, False for the zeros after the end of a shorter one.

    Raises:
        ValueError: No videos or no frames; frames of different sizes in one video; videos of different resized sizes
            without `padding=True`; a file that can't be decoded; unusable settings, shapes or data types.
        FileNotFoundError: A file that doesn't exist.
        ImportError: A video file, and the decoder's package is missing.
        TypeError: Something that is no video; a setting that doesn't exist.

    Example:
    ```python
    >>> processor = VitaVideoProcessor()
    >>> inputs = processor("clip.mp4", return_tensors="pt")
    >>> outputs = model(pixel_values_videos=inputs.pixel_values_videos, frame_mask=inputs.frame_mask)
    >>> result = processor.post_process_video_instance_segmentation(outputs, inputs.frame_sizes, [(720, 1280)])[0]
    ```
    """

    valid_kwargs = VitaVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "frame_mask"]

    do_resize = True
    size = {"shortest_edge": 360, "longest_edge": 1333}
    default_to_square = False
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_pad = True
    do_convert_rgb = True
    do_sample_frames = False
    size_divisor = 32
    padding = False
    decoder = "pyav"

    def preprocess(self, videos, **kwargs) -> BatchFeature:
        """Process videos into a batch; see the class for what is accepted and returned."""
        settings = self._settings(kwargs)
        videos = split_videos(videos)
        metadata = settings["video_metadata"]
        metadata = [None] * len(videos) if metadata is None else make_batched_metadata(videos, metadata)
        if len(metadata) != len(videos):
            raise ValueError(f"video_metadata has {len(metadata)} entries for {len(videos)} videos")
        loaded = [
            self._load_video(video, f"video {index}", known, settings)
            for index, (video, known) in enumerate(zip(videos, metadata))
        ]
        batch = self._make_batch([frames for frames, _ in loaded], settings)
        features = BatchFeature(batch, tensor_type=settings.get("return_tensors"))
        if settings["return_metadata"]:
            features["video_metadata"] = [metadata for _, metadata in loaded]
        return features

    def iterate_chunks(
        self,
        source: FrameSource,
        chunk_size: int,
        indices: Container[int] | None = None,
        max_frames: int | None = None,
        name: str = "the video",
        **kwargs,
    ) -> Iterator[FrameChunk]:
        """
        Prepare one video chunk by chunk, holding no more than a chunk of it: together the chunks are what a call of
        the processor gives for the whole video.

        Args:
            source: The video, from [`~vita_hf.video.sources.open_video`].
            chunk_size: Frames in every chunk but the last.
            indices: Which of its frames to use; all by default. `do_sample_frames` plays no role here.
            max_frames: The most frames to use; all by default.
            name: What messages call the video.
            kwargs: Settings as for a call.

        Raises:
            As a call does: the settings are checked at once, the frames as they come.
        """
        settings = self._settings(kwargs)
        frames = islice(self._resize_frames(source, indices, name, settings), max_frames)

        def chunks():
            while chunk := list(islice(frames, chunk_size)):
                batch = self._make_batch([torch.stack([frame for frame, _ in chunk])], settings)
                size = tuple(batch["frame_sizes"][0].tolist())
                yield FrameChunk(batch["pixel_values_videos"][0], size, chunk[0][1])

        return chunks()

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None):
        """
        Decode a video file, or a list of them, with `self.decoder`.

        Returns:
            A uint8 array (T, H, W, 3) and its `VideoMetadata`; for a list, a list of arrays and one of metadata.
        """
        if isinstance(video_url_or_urls, list | tuple):
            videos = [self.fetch_videos(video, sample_indices_fn=sample_indices_fn) for video in video_url_or_urls]
            return [list(part) for part in zip(*videos)]
        reader = VideoReader(video_url_or_urls, self.decoder)
        indices, metadata = _choose_frames(reader, None, sample_indices_fn)
        frames = list(reader.frames(indices))
        if not frames:
            raise ValueError(f"{reader.path} has no frames")
        frames = np.stack(frames)
        return frames, _complete(metadata, reader, indices, len(frames), frames.shape[1:3])

    def _settings(self, kwargs: dict) -> dict:
        """Check a call's settings and fill in the processor's own."""
        validate_typed_dict(self.valid_kwargs, kwargs)
        settings = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__} | kwargs
        settings = self._standardize_kwargs(**settings)
        if settings["do_center_crop"]:
            raise ValueError("do_center_crop=True is not supported: masks are mapped back onto whole frames")
        if settings["size_divisor"] < 1:
            raise ValueError(f"size_divisor must be at least 1, got {settings['size_divisor']}")
        return settings

    def _load_video(self, video, name: str, metadata: VideoMetadata | None, settings: dict):
        """Read one video and resize its frames one at a time: (T, 3, h, w) in the frames' dtype, and metadata."""
        if isinstance(video, str | Path):
            name = f"{name} ({video})"
        source = open_video(video, name, settings["decoder"])
        sample_indices_fn = None
        if settings["do_sample_frames"] and not (settings["num_frames"] is None and settings["fps"] is None):

            def sample_indices_fn(metadata):
                return self.sample_frames(metadata, num_frames=settings["num_frames"], fps=settings["fps"])

        indices, metadata = _choose_frames(source, metadata, sample_indices_fn)
        frames = list(self._resize_frames(source, indices, name, settings))
        metadata = _complete(metadata, source, indices, len(frames), frames[0][1])
        return torch.stack([frame for frame, _ in frames]), metadata

    def _resize_frames(
        self, source: FrameSource, indices: Container[int] | None, name: str, settings: dict
    ) -> Iterator[tuple[torch.Tensor, tuple[int, int]]]:
        """Yield each frame resized, (3, h, w) in its own dtype, and its original size."""
        size, brightest = None, -1.0
        for index, frame in enumerate(source.frames(indices)):
            where = f"{name}, frame {indices[index] if hasattr(indices, '__getitem__') else index}"
            if isinstance(frame, str | Path):
                where += f" ({frame})"
            frame = _to_channels_first(frame, where, settings["input_data_format"], settings["do_convert_rgb"])
            if settings["device"] is not None:
                frame = frame.to(settings["device"])
            size = size or tuple(frame.shape[1:])
            if tuple(frame.shape[1:]) != size:
                raise different_size(where, frame.shape[1:], size)
            if settings["do_resize"]:
                frame = self.resize(frame, _resized(settings["size"], *size), settings["resample"])
            if frame.is_floating_point():
                brightest = max(brightest, frame.max().item())
            yield frame, size
        if size is None:
            raise ValueError(f"{name} has no frames")
        if settings["do_rescale"] and 0 <= brightest <= 1:
            warnings.warn(
                f"{name}: float frames with values of at most 1 were rescaled; "
                "pass do_rescale=False if they are in [0, 1] already",
                stacklevel=2,
            )

    def _make_batch(self, videos: list[torch.Tensor], settings: dict) -> dict[str, torch.Tensor]:
        """Normalise videos (T, 3, h, w) and write them into one zero-padded batch."""
        sizes = [tuple(video.shape[-2:]) for video in videos]
        if len(set(sizes)) > 1 and not settings["padding"]:
            raise ValueError(
                f"videos whose sizes differ after resizing ({', '.join(map(_hxw, sizes))}) can't share a batch without "
                "changing the results: process them one by one or grouped by size, or pass padding=True to pad them "
                "to the largest, as in training"
            )
        divisor = settings["size_divisor"] if settings["do_pad"] else 1
        height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes))
        length = max(len(video) for video in videos)
        pixels = torch.zeros((len(videos), length, 3, height, width), device=videos[0].device)
        mask = torch.zeros((len(videos), length), dtype=torch.bool, device=videos[0].device)
        names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        for index, (video, (h, w)) in enumerate(zip(videos, sizes)):
            pixels[index, : len(video), :, :h, :w] = self.rescale_and_normalize(video, *(settings[n] for n in names))
            mask[index, : len(video)] = True
        sizes = torch.tensor(sizes, device=videos[0].device)
        return {"pixel_values_videos": pixels, "frame_sizes": sizes, "frame_mask": mask}

    @torch.no_grad()
    def post_process_video_instance_segmentation(
        self,
        outputs,
        frame_sizes: torch.Tensor | Sequence[tuple[int, int]] | None = None,
        target_sizes: torch.Tensor | Sequence[tuple[int, int]] | None = None,
        top_k: int = 10,
        threshold: float = 0.0,
        one_label_per_query: bool = False,
        output_format: Literal["masks", "rle"] = "masks",
        frame_mask: torch.Tensor | None = None,
        chunk_size: int = 5,
        id2label: Mapping[int, str] | None = None,
    ) -> list[VideoInstances]:
        """
        Turn the model's outputs into instances, one [`VideoInstances`] a video, best scores first.

        A track's score is its class probability times the mean mask probability of its pixels (those above 0.5),
        over the whole video. Computed in float32 on the outputs' device, `chunk_size` frames at a time; the results
        are on the CPU. For long videos `output_format="rle"` needs little memory.

        Args:
            outputs: Has `class_queries_logits` (B, vQ, K + 1), `mask_embeddings` (B, vQ, C) and
                `video_mask_features` (B, T, C, H/4, W/4).
            frame_sizes: (h, w) of each video before padding, as the processor returns them; (H, W) if None.
            target_sizes: (h, w) of each video's masks, usually the original frames'; `frame_sizes` if None.
            top_k: The most tracks a video can have: 10 for YouTube-VIS, 20 for OVIS.
            threshold: Tracks with a lower score are dropped.
            one_label_per_query: False ranks all pairs of a query and a class, so that a query may appear with several
                labels: the rule for metrics and submissions. True takes each query once, with its best class: what
                people want to look at.
            output_format: "masks" (bool tensors) or "rle" (compressed run lengths for pycocotools).
            frame_mask: Tensor (B, T) as the processor returns it: True, then False for frames after the video's end,
                which are not part of the result.
            chunk_size: Frames processed at once. Bounds memory; does not change results.
            id2label: Names of the classes, handed on to the results.

        Raises:
            ValueError: An argument has a wrong value or length, or a frame size exceeds the network's.
        """
        features, batch_size = outputs.video_mask_features, len(outputs.video_mask_features)
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        frame_mask = torch.ones(features.shape[:2], dtype=torch.bool) if frame_mask is None else frame_mask.bool()
        if frame_mask.shape != features.shape[:2]:
            expected, got = tuple(features.shape[:2]), tuple(frame_mask.shape)
            raise ValueError(f"frame_mask must have the shape {expected} of the outputs, got {got}")
        lengths = frame_mask.sum(1).tolist()
        if not all(mask[:length].all() for mask, length in zip(frame_mask, lengths)):
            raise ValueError("frame_mask must be True for each video's first frames and False only after them")
        frame_sizes = _size_list(frame_sizes, "frame_sizes", batch_size)
        target_sizes = _size_list(target_sizes, "target_sizes", batch_size)

        results = []
        for index in range(batch_size):
            builder = VideoInstancesBuilder(
                outputs.class_queries_logits[index],
                outputs.mask_embeddings[index],
                frame_size=frame_sizes[index],
                target_size=target_sizes[index],
                top_k=top_k,
                threshold=threshold,
                one_label_per_query=one_label_per_query,
                output_format=output_format,
                id2label=id2label,
            )
            for chunk in features[index, : lengths[index]].split(chunk_size):
                builder.add_frames(chunk)
            results.append(builder.build())
        return results


def _choose_frames(source, metadata: VideoMetadata | None, sample_indices_fn):
    """Return the indices of the frames to use (None: all) and, where the choice needed it, metadata."""
    if sample_indices_fn is None:
        return None, metadata
    if metadata is None:
        metadata = VideoMetadata(total_num_frames=source.count_frames(), fps=source.fps)
    return sorted(int(index) for index in sample_indices_fn(metadata=metadata)), metadata


def _complete(metadata: VideoMetadata | None, source, indices, num_frames: int, size) -> VideoMetadata:
    """Fill in what is known once the frames have been read."""
    metadata = metadata or VideoMetadata(total_num_frames=num_frames, fps=source.fps)
    duration = metadata.total_num_frames / metadata.fps if metadata.duration is None and metadata.fps else None
    return replace(
        metadata,
        height=size[0],
        width=size[1],
        duration=metadata.duration or duration,
        frames_indices=list(range(num_frames)) if indices is None else indices,
    )


def _to_channels_first(frame, where: str, data_format: str | None, to_rgb: bool) -> torch.Tensor:
    """Convert an image of any accepted kind to an RGB tensor (3, H, W), uint8 or float32."""
    if isinstance(frame, str | Path):
        frame = read_image(frame)
    if isinstance(frame, Image.Image):
        if frame.mode in ("I", "F") or frame.mode.startswith("I;"):
            raise ValueError(f"{where}: expected 8 bits a channel, got an image of Pillow's mode {frame.mode!r}")
        frame = ImageOps.exif_transpose(frame)
        # Pillow knows palettes and the like.
        frame = np.array(frame.convert("RGB") if to_rgb else frame)
        data_format = ChannelDimension.LAST
    prefer_last = isinstance(frame, np.ndarray)
    if prefer_last:
        frame = torch.from_numpy(np.array(frame, order="C"))
    if frame.is_floating_point():
        frame = frame.float()
    elif frame.dtype != torch.uint8:
        raise ValueError(f"{where}: expected uint8 or float values, got {frame.dtype}")

    if frame.ndim == 2:
        frame = frame[None]
    else:
        last, first = frame.shape[-1] in (1, 3, 4), frame.shape[0] in (1, 3, 4)
        if data_format is not None:
            channels_last = data_format == ChannelDimension.LAST
        elif last or first:
            channels_last = last and (prefer_last or not first)
        else:
            raise ValueError(f"{where}: expected 1, 3 or 4 channels, got an image of shape {tuple(frame.shape)}")
        if channels_last:
            frame = frame.permute(2, 0, 1)
    if frame.shape[0] not in ((1, 3, 4) if to_rgb else (3,)):
        allowed = "1, 3 or 4 channels" if to_rgb else "3 channels (do_convert_rgb=False)"
        raise ValueError(f"{where}: expected {allowed}, got {frame.shape[0]}")
    return frame.expand(3, -1, -1) if frame.shape[0] == 1 else frame[:3]


def _resized(size: SizeDict | None, height: int, width: int) -> SizeDict:
    """Compute one video's size after resizing."""
    if size is not None and size.height and size.width:
        height, width = size.height, size.width
    elif size is not None and size.shortest_edge:
        height, width = resize_output_size(height, width, size.shortest_edge, size.longest_edge)
    else:
        got = None if size is None else dict(size)
        raise ValueError(f"size must have shortest_edge (and maybe longest_edge), or height and width; got {got}")
    return SizeDict(height=height, width=width)


def _size_list(sizes, name: str, batch_size: int) -> list[tuple[int, int] | None]:
    if sizes is None:
        return [None] * batch_size
    if len(sizes) != batch_size:
        raise ValueError(f"{name} must have one (height, width) a video: expected {batch_size}, got {len(sizes)}")
    sizes = [tuple(int(side) for side in size) for size in sizes]
    for size in sizes:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"{name} must hold positive (height, width) pairs, got {size}")
    return sizes


def _hxw(size) -> str:
    return f"{size[0]}×{size[1]}"


__all__ = ["FrameChunk", "VitaVideoProcessor", "VitaVideoProcessorKwargs", "resize_output_size"]

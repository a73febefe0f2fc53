# Copyright 2026 the vita-hf authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Video processor of VITA: videos to tensors, outputs to instances."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from transformers import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling, SizeDict
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import TensorType, auto_docstring
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoInput, make_batched_metadata

from .tracks.building import VideoInstancesBuilder
from .tracks.instances import VideoInstances
from .video.batching import FrameChunk, normalize_and_pad
from .video.download import shown
from .video.frame_source import Choice, Frame, FrameSource, check_frame_size
from .video.images import FloatScale, to_rgb_tensor
from .video.metadata import choose_by_metadata, complete_metadata, record_frames
from .video.reader import VideoReader
from .video.resizing import resize_output_size
from .video.sources import open_video, split_videos


class VitaVideoProcessorKwargs(VideosKwargs, total=False):
    r"""
    size_divisor (`int`, *optional*, defaults to 32):
        Frames are padded at the right and the bottom to a multiple of this.
    padding (`bool`, *optional*, defaults to `False`):
        Whether videos of different sizes may share a batch, padded to the largest height and width. This changes the
        results: the network has no padding mask, so its position encodings and group norms see the padding.
    decoder (`str`, *optional*, defaults to `"pyav"`):
        Decoder of video files, `"pyav"` or `"torchcodec"`.
    """

    size_divisor: int
    padding: bool
    decoder: Literal["pyav", "torchcodec"]


@auto_docstring(
    custom_intro="""
    Turn videos into VITA's inputs, and VITA's outputs into instances.

    Frames are resized as uint8 (bilinear, antialiased) such that the shorter side becomes `size["shortest_edge"]` and
    the longer side is at most `size["longest_edge"]`; or to exactly `size["height"]` and `size["width"]`. Then they are
    rescaled, normalized with ImageNet's mean and standard deviation, and padded with zeros at the right and the bottom
    to a multiple of `size_divisor`. The released models use a shorter side of 360 (ResNet) or 448 (Swin).
    """
)
class VitaVideoProcessor(BaseVideoProcessor):
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

    def __init__(self, **kwargs: Unpack[VitaVideoProcessorKwargs]) -> None:
        super().__init__(**kwargs)

    @auto_docstring(custom_intro="Process one video or a batch of videos.")
    def preprocess(self, videos: VideoInput, **kwargs: Unpack[VitaVideoProcessorKwargs]) -> BatchFeature:
        r"""
        videos (`VideoInput`):
            One video or a list of videos.

            - An image is a path with an image's suffix, a PIL image, or an array or tensor with 2 (gray) or 3
              dimensions. A list of images is one video, and so is a single image.
            - A video is a path to a video file or to a folder of frames (in natural order of their names), an array or
              tensor with 4 dimensions, or a list of images. A list of videos is a batch, and so is an array with 5
              dimensions.

            Arrays are (…, H, W, C) or (…, C, H, W) with 1 (gray), 3 or 4 (RGB and alpha) channels. If both are
            possible, NumPy arrays are channels last and tensors channels first, unless `input_data_format` is given.
            Gray is repeated and alpha dropped; with `do_convert_rgb=False`, frames that are not RGB are errors. Images
            are turned upright by their EXIF tag, video files by their rotation.

            Values are uint8 or float. Float videos are in [0, 1] (these become uint8) or in [0, 255]: the first frame
            that is not black shows which. With `do_rescale=False`, floats are taken as they are. Tensors are processed
            on their device, or on `device`.

        Returns:
            `BatchFeature` with

            - **pixel_values_videos** float32 (B, T, 3, H, W): T is the length of the longest video; H and W include
              padding.
            - **frame_sizes** int64 (B, 2): height and width after resizing, before padding.
            - **original_sizes** int64 (B, 2): height and width before resizing.
            - **frame_mask** bool (B, T): True for a video's own frames, False after the end of a shorter one.
            - **video_metadata** (with `return_metadata=True`): a list of `VideoMetadata` with each video's original
              height and width, the indices and `timestamps` of its frames, and its frame rate if known.

        Raises:
            ValueError: if there are no videos or no frames, the frames of a video differ in size, the resized videos
                differ in size and `padding` is False, a file cannot be decoded, or a setting cannot be used.
            FileNotFoundError: if a file does not exist.
            ImportError: if the package of the decoder is missing.
            TypeError: if something is not a video, or a setting does not exist.

        Example:
        ```python
        >>> import numpy as np
        >>> from vita_hf import VitaVideoProcessor

        >>> processor = VitaVideoProcessor(size={"shortest_edge": 90})
        >>> inputs = processor(np.zeros((5, 120, 160, 3), dtype=np.uint8))  # a video of 5 frames
        >>> inputs.pixel_values_videos.shape, inputs.frame_sizes.tolist()
        (torch.Size([1, 5, 3, 96, 128]), [[90, 120]])

        ```
        """  # noqa: D403 - it starts with the name of an argument
        settings = self._complete_settings(kwargs)
        do_convert_rgb, do_sample_frames = settings["do_convert_rgb"], settings["do_sample_frames"]
        num_frames, fps = settings["num_frames"], settings["fps"]
        sampler = None
        if do_sample_frames and not (num_frames is None and fps is None):
            sampler = partial(self.sample_frames, num_frames=num_frames, fps=fps)
        videos = split_videos(videos)
        metadata = settings["video_metadata"]
        metadata = [None] * len(videos) if metadata is None else make_batched_metadata(videos, metadata)
        if len(metadata) != len(videos):
            raise ValueError(f"video_metadata has {len(metadata)} entries for {len(videos)} videos")

        frames, sources = [], []
        for index, (video, known) in enumerate(zip(videos, metadata)):
            name = f"video {index} ({shown(video)})" if isinstance(video, str | Path) else f"video {index}"
            source = open_video(video, name, settings["decoder"])
            choice, known = choose_by_metadata(source, known, sampler, fps if num_frames is None else None)
            rgb_frames = self._read_frames(source, choice, do_convert_rgb, settings)
            first = next(rgb_frames)
            read: list[Frame] = []
            frames.append(record_frames(chain([first], rgb_frames), read))
            sources.append((source, known, read))
        batch = self._preprocess(frames, **settings)
        if settings["return_metadata"]:
            sizes = batch["original_sizes"].tolist()
            batch["video_metadata"] = [complete_metadata(*facts, size) for facts, size in zip(sources, sizes)]
        return batch

    def iterate_chunks(
        self,
        source: FrameSource,
        chunk_size: int,
        choice: Choice | None = None,
        max_frames: int | None = None,
        **kwargs: Unpack[VitaVideoProcessorKwargs],
    ) -> Iterator[FrameChunk]:
        """
        Process one video chunk by chunk, with only one chunk in memory.

        Together, the chunks hold the same values as a call of the processor for the whole video.

        Args:
            source: The video, from [`~vita_hf.video.sources.open_video`].
            chunk_size: Number of frames in every chunk but the last.
            choice: Which of its frames to use; by default all. `do_sample_frames` is ignored.
            max_frames: The maximum number of frames to use; by default all.
            kwargs: Settings as for a call.

        Raises:
            ValueError: as for a call, but only once the offending frame is reached.
        """
        settings = self._complete_settings({**kwargs, "return_tensors": "pt"})
        frames = islice(self._read_frames(source, choice, settings["do_convert_rgb"], settings), max_frames)
        for first in frames:
            read: list[Frame] = []
            batch = self._preprocess([record_frames(chain([first], islice(frames, chunk_size - 1)), read)], **settings)
            sizes = (tuple(batch[name][0].tolist()) for name in ("frame_sizes", "original_sizes"))
            indices, times = [frame.index for frame in read], [frame.time for frame in read]
            yield FrameChunk(batch["pixel_values_videos"][0], *sizes, indices, times)

    def _complete_settings(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Check the settings of a call and add the processor's own."""
        validate_typed_dict(self.valid_kwargs, kwargs)  # ty: ignore[invalid-argument-type] - it takes typed dicts
        settings = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__} | kwargs
        settings = self._standardize_kwargs(**settings)
        if settings["do_center_crop"]:
            raise ValueError("do_center_crop=True is not supported: masks are mapped back onto whole frames")
        if settings["size_divisor"] < 1:
            raise ValueError(f"size_divisor must be at least 1, got {settings['size_divisor']}")
        return settings

    def _read_frames(
        self,
        source: FrameSource,
        choice: Choice | None,
        do_convert_rgb: bool,
        settings: Mapping[str, Any],
    ) -> Iterator[Frame]:
        """Yield the frames of a video, all of one size, with images as RGB tensors (3, h, w), uint8 or float."""
        size, scale = None, FloatScale()
        for frame in source.read(choice):
            where = f"{source.name}, frame {frame.index}"
            if isinstance(frame.image, str | Path):
                where += f" ({frame.image})"
            image = to_rgb_tensor(frame.image, where, settings["input_data_format"], do_convert_rgb)
            size = size or image.shape[1:]
            check_frame_size(where, image.shape[1:], size)
            if settings["do_rescale"]:
                image = scale(image, where)
            yield frame._replace(image=image if settings["device"] is None else image.to(settings["device"]))
        if size is None:
            raise ValueError(f"{source.name} has no frames")

    def _preprocess(  # ty: ignore[incompatible-method-override] - frames come one at a time
        self,
        videos: Sequence[Iterable[torch.Tensor]],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        do_pad: bool,
        size_divisor: int,
        padding: bool,
        return_tensors: str | TensorType | None = None,
        **kwargs,
    ) -> BatchFeature:
        """Resize RGB frames one at a time, and write all videos into one normalized, zero-padded batch."""
        resized, original_sizes = [], []
        for frames in videos:
            video = []
            for frame in frames:
                video.append(self.resize(frame, size, resample) if do_resize else frame)
            original_sizes.append(frame.shape[-2:])
            resized.append(torch.stack(video))
        sizes = [tuple(video.shape[-2:]) for video in resized]
        if len(set(sizes)) > 1 and not padding:
            unequal = ", ".join(f"{height}×{width}" for height, width in sizes)
            raise ValueError(
                f"videos whose sizes differ after resizing ({unequal}) cannot share a batch without changing the "
                "results: process them one by one or grouped by size, or pass padding=True to pad them to the largest"
            )
        pixels = normalize_and_pad(
            resized,
            image_mean=image_mean,
            image_std=image_std,
            rescale_factor=rescale_factor,
            size_divisor=size_divisor if do_pad else 1,
            do_rescale=do_rescale,
            do_normalize=do_normalize,
        )
        lengths = torch.tensor([len(video) for video in resized], device=pixels.device)
        batch = {
            "pixel_values_videos": pixels,
            "frame_sizes": torch.tensor(sizes, device=pixels.device),
            "original_sizes": torch.tensor(original_sizes, device=pixels.device),
            "frame_mask": torch.arange(pixels.shape[1], device=pixels.device) < lengths[:, None],
        }
        return BatchFeature(batch, tensor_type=return_tensors)

    def resize(
        self, image: torch.Tensor, size: SizeDict, resample: Any = None, antialias: bool = True, **kwargs
    ) -> torch.Tensor:
        """Resize an image (…, h, w) to the size that the reference computes, which transformers rounds differently."""
        height, width = image.shape[-2:]
        if size is not None and size.height and size.width:
            height, width = size.height, size.width
        elif size is not None and size.shortest_edge:
            height, width = resize_output_size(height, width, size.shortest_edge, size.longest_edge)
        else:
            got = None if size is None else dict(size)
            raise ValueError(f"size must have shortest_edge (and maybe longest_edge), or height and width; got {got}")
        return super().resize(image, SizeDict(height=height, width=width), resample, antialias, **kwargs)

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None):
        """
        Decode a video file, or a list of them, with `self.decoder`.

        Args:
            video_url_or_urls (`str` or `list`): A path, an URL, or a list of those.
            sample_indices_fn (`Callable`, *optional*): Maps `VideoMetadata` to the indices of the frames to decode.

        Returns:
            A uint8 array (T, H, W, 3) and its `VideoMetadata`; for a list, two lists.
        """
        if isinstance(video_url_or_urls, list | tuple):
            videos = [self.fetch_videos(video, sample_indices_fn=sample_indices_fn) for video in video_url_or_urls]
            return [list(part) for part in zip(*videos)]
        reader = VideoReader(video_url_or_urls, self.decoder)
        choice, metadata = choose_by_metadata(reader, None, sample_indices_fn)
        frames = list(reader.read(choice))
        if not frames:
            raise ValueError(f"{reader.path} has no frames")
        images = np.stack([frame.image for frame in frames])
        return images, complete_metadata(reader, metadata, frames, images.shape[1:3])

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
        Turn the model's outputs into instances: one [`VideoInstances`] per video, best scores first.

        A track's score is its class probability times the mean mask probability of its pixels (those above 0.5) over
        the whole video. Masks are computed in float32 on the outputs' device; the results are on the CPU. For long
        videos, `output_format="rle"` needs little memory.

        Args:
            outputs: Model outputs with `class_queries_logits` (B, vQ, K + 1), `mask_embeddings` (B, vQ, C) and
                `video_mask_features` (B, T, C, H/4, W/4).
            frame_sizes: (h, w) of each video before padding, as the processor returns them; by default (H, W).
            target_sizes: (h, w) of each video's masks, usually the `original_sizes` that the processor returns; by
                default `frame_sizes`.
            top_k: The maximum number of tracks per video: 10 for YouTube-VIS, 20 for OVIS.
            threshold: Minimum score of a track.
            one_label_per_query: False ranks all pairs of a query and a class: the rule for metrics and submissions.
                True keeps only the best class of each query, which is better for viewing.
            output_format: "masks" (bool tensors) or "rle" (compressed RLE for pycocotools).
            frame_mask: Bool tensor (B, T) as the processor returns it; frames after the end of a video are left out.
            chunk_size: Number of frames processed at once. It bounds memory and does not change the results.
            id2label: Names of the classes, usually `model.config.id2label`, passed on to the results.

        Raises:
            ValueError: if an argument has a wrong value or length, a frame size exceeds (H, W), or an output is NaN or
                infinite.
        """
        features, batch_size = outputs.video_mask_features, len(outputs.video_mask_features)
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        videos = zip(
            outputs.class_queries_logits,
            outputs.mask_embeddings,
            features,
            _video_lengths(frame_mask, *features.shape[:2]),
            _size_list(frame_sizes, "frame_sizes", batch_size),
            _size_list(target_sizes, "target_sizes", batch_size),
        )
        results = []
        for index, (class_logits, mask_embeddings, mask_features, length, frame_size, target_size) in enumerate(videos):
            builder = VideoInstancesBuilder(
                class_logits,
                mask_embeddings,
                frame_size=frame_size,
                target_size=target_size,
                top_k=top_k,
                threshold=threshold,
                one_label_per_query=one_label_per_query,
                output_format=output_format,
                id2label=id2label,
                name=f"video {index}",
            )
            for chunk in mask_features[:length].split(chunk_size):
                builder.add_frames(chunk)
            results.append(builder.build())
        return results


def _video_lengths(frame_mask: torch.Tensor | None, batch_size: int, num_frames: int) -> list[int]:
    if frame_mask is None:
        return [num_frames] * batch_size
    if frame_mask.shape != (batch_size, num_frames):
        expected, got = (batch_size, num_frames), tuple(frame_mask.shape)
        raise ValueError(f"frame_mask must have the shape {expected} of the outputs, got {got}")
    lengths = frame_mask.bool().sum(1).tolist()
    if not all(mask[:length].all() for mask, length in zip(frame_mask, lengths)):
        raise ValueError("frame_mask must be True for each video's first frames and False only after them")
    return lengths


def _size_list(sizes, name: str, batch_size: int) -> list[tuple[int, int] | None]:
    if sizes is None:
        return [None] * batch_size
    sizes = [tuple(int(side) for side in size) for size in sizes]
    if len(sizes) != batch_size or any(len(size) != 2 or min(size) < 1 for size in sizes):
        raise ValueError(f"{name} must have one positive (height, width) for each of {batch_size} videos, got {sizes}")
    return [(height, width) for height, width in sizes]


__all__ = ["VitaVideoProcessor", "VitaVideoProcessorKwargs", "resize_output_size"]

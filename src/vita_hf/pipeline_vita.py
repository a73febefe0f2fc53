"""`transformers.pipeline("video-instance-segmentation")`: from a video of any kind and length to tracks."""

from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any, Literal

from torch import nn
from transformers import Pipeline
from transformers.video_processing_utils import BaseVideoProcessor

from .image_processing_vita import VitaVideoProcessor
from .inference.mask_feature_stores import MaskFeatures
from .inference.offline import VideoStream, segment_video
from .modeling_vita import VitaForVideoInstanceSegmentation
from .tracks.instances import VideoInstances
from .video.sources import split_videos


class VideoInstanceSegmentationPipeline(Pipeline):
    """
    Segment and track every object through a video: `pipeline("video-instance-segmentation", model=…)`.

    Memory does not grow with a video's length, but for 100 KiB of queries a frame, see `mask_features`.

    Args:
        model: [`VitaForVideoInstanceSegmentation`], or through `pipeline` a directory or Hub id that holds one.
        video_processor: [`VitaVideoProcessor`].
        compile (`bool`, defaults to `False`):
            Whether to compile the detector with `torch.compile`. The first frames of every frame size then take
            minutes, the rest less time.
        kwargs: Every argument of a call may be given here as its default; `device` and `dtype` as for any pipeline.

    Raises:
        ValueError: There is no video processor, or weights are not finite numbers.

    Example:
    ```python
    >>> import vita_hf
    >>> from transformers import pipeline

    >>> segmenter = pipeline("video-instance-segmentation", model="path/to/model", device="cuda", dtype="bfloat16")
    >>> result = segmenter("clip.mp4")
    >>> list(zip(result.track_ids.tolist(), result.label_names, result.scores.tolist()))
    >>> result.render("clip.mp4", "overlay.mp4")
    ```
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    model: VitaForVideoInstanceSegmentation
    video_processor: VitaVideoProcessor

    def __init__(
        self,
        model: VitaForVideoInstanceSegmentation,
        video_processor: BaseVideoProcessor | None = None,
        *args,
        compile: bool = False,
        **kwargs,
    ):
        if not isinstance(model, VitaForVideoInstanceSegmentation):
            raise ValueError(
                f"video-instance-segmentation needs a VitaForVideoInstanceSegmentation, got {type(model).__name__}"
            )
        if not isinstance(video_processor, VitaVideoProcessor):
            got = "none" if video_processor is None else type(video_processor).__name__
            raise ValueError(f"video-instance-segmentation needs a VitaVideoProcessor as video_processor, got {got}")
        check_weights(model)
        super().__init__(model, *args, video_processor=video_processor, **kwargs)
        self.model.eval()
        if compile:
            # In place and module by module, so that a second pass over a video runs the very same code.
            self.model.model.pixel_level_module.compile()
            self.model.model.transformer_module.compile()

    def __call__(self, inputs: Any, **kwargs: Any) -> VideoInstances | list[VideoInstances] | Iterator[VideoInstances]:
        """
        Segment videos.

        Args:
            inputs: One video, a list of videos, or a generator of videos, whose results come as they are asked for.

                - *A video* is a path to a video file or to a folder of frames, an http(s) address of a video, an array
                  or tensor with 4 dimensions, or a list of images; see [`VitaVideoProcessor`] for what these may be.
                  A list of images is one video.
                - In a list, a video may also be an iterator of images, which is read once as it goes.
            fps (`float`): Use so many frames a second of the video. Needs a video file.
            stride (`int`): Use every `stride`-th frame, instead of `fps`.
            max_frames (`int`): Use at most so many frames.
            decoder ("pyav" or "torchcodec"): What decodes video files; by default the processor's setting.
            threshold (`float`, defaults to 0.3): Tracks with a lower score are dropped.
            top_k (`int`): The most tracks; by default all, and 10 with `one_label_per_query=False`.
            one_label_per_query (`bool`, defaults to `True`):
                Give each track its best label only. False is the paper's rule for metrics and submissions (with
                `threshold=0`): the best `top_k` pairs of a track and a label.
            mask_features ("auto", "exact", "device", "host", "disk" or "recompute"):
                Where mask features are kept, see [`~vita_hf.inference.offline.segment_video`]; by default where there
                is room.
            chunk_size (`int`): Frames that go through the detector at once; by default the model's setting.
            progress (`bool`): Whether to show progress bars; by default on a terminal only.

        Returns:
            [`VideoInstances`] with masks as run lengths, in the video's original size; a list for a list, an iterator
            for a generator.

        Raises:
            FileNotFoundError, ImportError, OSError, TypeError, ValueError: A video can't be read or an argument is
                unusable; says which, and what was expected.
        """
        if kwargs.get("batch_size", self._batch_size) not in (None, 1):
            raise ValueError(
                "batch_size must be 1: videos are segmented one after the other, chunk_size of their frames at once"
            )
        if not isinstance(inputs, GeneratorType):
            videos = split_videos(inputs)
            is_list = isinstance(inputs, list | tuple) and videos[0] is not inputs
            # What is a list for transformers is a list of videos.
            inputs = videos if is_list or getattr(inputs, "ndim", None) == 5 else _Video(videos[0])
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **kwargs):
        reading = {name: kwargs.pop(name) for name in ("fps", "stride", "max_frames", "decoder") if name in kwargs}
        names = ("threshold", "top_k", "one_label_per_query", "mask_features", "chunk_size", "progress")
        running = {name: kwargs.pop(name) for name in names if name in kwargs}
        if kwargs:
            raise TypeError(f"unknown arguments: {', '.join(kwargs)}")
        return reading, running, {}

    def preprocess(
        self,
        video: Any,
        fps: float | None = None,
        stride: int | None = None,
        max_frames: int | None = None,
        decoder: Literal["pyav", "torchcodec"] | None = None,
    ) -> dict[str, VideoStream]:
        """Open a video; its frames are read as they are needed."""
        if isinstance(video, _Video):
            video = video.content
        return {"stream": VideoStream(self.video_processor, video, None, fps, stride, max_frames, decoder)}

    def _forward(
        self,
        model_inputs: dict[str, VideoStream],
        threshold: float = 0.3,
        top_k: int | None = None,
        one_label_per_query: bool = True,
        mask_features: MaskFeatures = "auto",
        chunk_size: int | None = None,
        progress: bool | None = None,
    ) -> dict[str, VideoInstances]:
        instances = segment_video(
            self.model,
            model_inputs["stream"],
            top_k=top_k,
            threshold=threshold,
            one_label_per_query=one_label_per_query,
            mask_features=mask_features,
            chunk_size=chunk_size,
            progress=progress,
        )
        return {"instances": instances}

    def postprocess(self, model_outputs: dict[str, VideoInstances]) -> VideoInstances:
        return model_outputs["instances"]

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save model and processor: all that `pipeline` needs to load them again."""
        # transformers' own leaves out the video processor, and adds this file as if it were the model's own code.
        self.model.save_pretrained(save_directory, **kwargs)
        self.video_processor.save_pretrained(save_directory, **kwargs)


class _Video:
    """One video, so that transformers does not take it for a list."""

    def __init__(self, content: Any):
        self.content = content


def check_weights(model: nn.Module) -> None:
    """
    Look for weights that are NaN or infinite.

    Raises:
        ValueError: There are some; names the first tensor that has any.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            bad = (~tensor.isfinite()).sum().item()
            raise ValueError(
                f"the model's weights are damaged: {bad} of the {tensor.numel()} values of {name} are not finite"
            )


__all__ = ["VideoInstanceSegmentationPipeline", "check_weights"]

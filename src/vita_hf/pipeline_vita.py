"""`transformers.pipeline("video-instance-segmentation")`: from a video of any kind and length to tracks."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import GeneratorType
from typing import IO, Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Pipeline
from transformers.utils import ModelOutput
from transformers.video_processing_utils import BaseVideoProcessor

from .image_processing_vita import VitaVideoProcessor
from .inference.offline import segment_video
from .inference.options import SegmentationOptions
from .modeling_vita import VitaForVideoInstanceSegmentation
from .tracks.instances import VideoInstances
from .tracks.labels import label_indices
from .video.frame_source import FrameSource
from .video.sources import open_video, split_videos


class VideoInstanceSegmentationPipeline(Pipeline):
    """
    Segment and track every object through a video: `pipeline("video-instance-segmentation", model=…)`.

    Memory does not grow with the length of the video, except for 100 KiB of frame queries per frame; see
    `mask_features` in [`~vita_hf.inference.options.SegmentationOptions`].

    Args:
        model: A [`VitaForVideoInstanceSegmentation`]; with `pipeline`, a directory or Hub id that holds one.
        video_processor: Its [`VitaVideoProcessor`].
        compile (`bool`, *optional*, defaults to `False`):
            Whether to compile the detector with `torch.compile`. The first frames of each size then take minutes; later
            ones are faster.
        kwargs: `device` and `dtype` as for any pipeline, and defaults for the settings of a call.

    Raises:
        ValueError: if there is no video processor, or a weight is not finite.

    Example:
    ```python
    >>> import numpy as np
    >>> from transformers import pipeline
    >>> from vita_hf.data.synthetic import SyntheticVideo
    >>> from vita_hf.inference.loading import SHIPPED_MODEL

    >>> segmenter = pipeline("video-instance-segmentation", model=str(SHIPPED_MODEL), device="cpu")
    >>> video = np.stack([image for image, _ in SyntheticVideo(2, 0, length=6)])  # or a path, "clip.mp4"
    >>> result = segmenter(video, threshold=0.5)
    >>> result.num_frames, result.size, bool((result.scores >= 0.5).all())
    (6, (96, 128), True)

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
        _check_weights(model)
        super().__init__(model, *args, video_processor=video_processor, **kwargs)
        self.model.eval()
        if compile:
            # Each module in place, so that a second pass over a video runs exactly the same code.
            self.model.model.pixel_level_module.compile()
            self.model.model.transformer_module.compile()

    def __call__(self, inputs: Any, **kwargs: Any) -> VideoInstances | list[VideoInstances] | Iterator[VideoInstances]:
        """
        Segment videos.

        Args:
            inputs: One video, a list of videos, or another iterable of videos, whose results are computed on demand: a
                generator, a column of a dataset (streamed or not), or
                `KeyDataset(dataset, "video")` of `transformers.pipelines.pt_utils`.

                - A video is a path to a video file or to a folder of images, an URL, an array or tensor
                  with 4 dimensions, or a list of images; see [`VitaVideoProcessor`].
                - A list of images is one video.
                - A video may also be a row `{"path": …, "bytes": …}` of a column of type
                  `datasets.Video(decode=False)`, and in a list of videos an iterator of images, which is read only
                  once.
            kwargs: The settings of [`~vita_hf.inference.options.SegmentationOptions`], for example `threshold=0.5`,
                `fps=5` or `mask_features="disk"`.

        Returns:
            [`VideoInstances`] with masks of the video's original size as compressed RLE; a list for a list, an iterator
            for another iterable.

        Raises:
            TypeError: if something is not a video, or a setting does not exist.
            ValueError: if a setting cannot be used; and whatever [`~vita_hf.inference.offline.segment_video`] raises.
        """
        if kwargs.get("batch_size", self._batch_size) not in (None, 1):
            raise ValueError(
                "batch_size must be 1: videos are segmented one after the other, chunk_size of their frames at once"
            )
        if isinstance(inputs, Dataset | Iterable) and not isinstance(inputs, _VIDEO_OR_LIST):
            inputs = _iterate(inputs)
        if not isinstance(inputs, GeneratorType):
            videos = [inputs] if isinstance(inputs, Mapping) else split_videos(inputs)
            is_list = isinstance(inputs, list | tuple) and videos[0] is not inputs
            # transformers takes every list for a list of videos.
            inputs = videos if is_list or getattr(inputs, "ndim", None) == 5 else _Video(videos[0])
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **kwargs):
        options = SegmentationOptions(**kwargs)  # this and the next line fail before a video is opened
        label_indices(options.classes or (), self.model.config.id2label)
        return {name: kwargs[name] for name in ("decoder", "frame_rate", "strict") if name in kwargs}, kwargs, {}

    def preprocess(self, input_: Any, **kwargs: Any) -> dict[str, Any]:
        """Open a video; its frames are read as they are needed."""
        video = input_.content if isinstance(input_, _Video) else input_
        file = None
        if isinstance(video, Mapping):
            video, file = _open_row(video)
        decoder = kwargs.pop("decoder", None) or self.video_processor.decoder
        source = open_video(video, decoder=decoder, **kwargs)
        return {"source": source, "file": file}  # a temporary file exists as long as it is referred to

    def _forward(self, input_tensors: dict[str, Any], **kwargs: Any) -> ModelOutput:
        options = SegmentationOptions(**kwargs)
        instances = segment_video(self.model, self.video_processor, input_tensors["source"], options)
        return ModelOutput(instances=instances)

    def postprocess(self, model_outputs: ModelOutput, **kwargs: Any) -> VideoInstances:
        return model_outputs["instances"]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model and its processor, which is all that `pipeline` needs to load them again."""
        # transformers' method omits the video processor, and adds this file as if it were the model's own code.
        self.model.save_pretrained(save_directory, **kwargs)
        self.video_processor.save_pretrained(save_directory, **kwargs)


# Iterable, and yet no iterable of videos that are opened on demand.
_VIDEO_OR_LIST = (str, list, tuple, Mapping, np.ndarray, Tensor, FrameSource)


class _Video:
    """Wraps one video so that transformers does not treat it as a list."""

    def __init__(self, content: Any):
        self.content = content


def _iterate(videos: Dataset | Iterable) -> Iterator[Any]:
    """Iterate over videos, also over a dataset that only has a length and items."""
    if isinstance(videos, Iterable):
        yield from videos
    else:
        yield from (videos[index] for index in range(len(videos)))  # ty: ignore[invalid-argument-type]


def _open_row(row: Mapping) -> tuple[str, IO[bytes] | None]:
    """Return the path of a row of a `datasets` column of videos, and its temporary file if the row holds bytes."""
    path, content = row.get("path"), row.get("bytes")
    if content is None and isinstance(path, str):
        return path, None
    if not isinstance(content, bytes):
        columns = ", ".join(map(repr, row))
        raise TypeError(
            f"expected a video, got a row with the columns {columns}: pass one column, such as dataset['video']"
        )
    file = NamedTemporaryFile(prefix="vita-hf-", suffix=Path(path or "").suffix)
    file.write(content)
    file.flush()
    return file.name, file


def _check_weights(model: nn.Module) -> None:
    """
    Look for weights that are NaN or infinite, except among offloaded ones.

    Raises:
        ValueError: if there are any; the message names the first tensor that has them.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.device.type != "meta" and not tensor.isfinite().all():
            bad = (~tensor.isfinite()).sum().item()
            raise ValueError(
                f"the model's weights are damaged: {bad} of the {tensor.numel()} values of {name} are not finite"
            )


__all__ = ["VideoInstanceSegmentationPipeline"]

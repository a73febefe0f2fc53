"""All segmentation settings and their defaults."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from types import NoneType
from typing import Literal, get_args

MaskFeatures = Literal["auto", "exact", "device", "host", "disk", "recompute"]
Decoder = Literal["pyav", "torchcodec"]

LOWEST_SCORE = 0.05
"""Tracks with at least this score are kept beside the result, so that another threshold needs no new segmentation."""


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions:
    """
    Settings of a segmentation: which tracks to report, which frames to read, and how to save memory.

    Attributes:
        threshold: Minimum score of a track, 0 … 1.
        top_k: The maximum number of tracks to report. By default all of them, or the model's `evaluation_top_k` if
            `one_label_per_query` is False.
        one_label_per_query: True gives each track its best label. False ranks all pairs of a query and a label, so a
            query may appear with several labels: the paper's rule for metrics and submissions.
        classes: Report only tracks of these classes, given by name or index; by default of all.
        mask_features: Where to keep the mask features until all frames have passed through the detector: on the model's
            "device"; in the "host" memory or on "disk" (in `TMPDIR`), both in half precision; or nowhere ("recompute"
            runs the detector twice). Device and recompute give exact masks, host and disk round to half precision.
            "auto" takes the first of the four that has room for the video, "exact" takes device if it has room,
            otherwise recompute.
        chunk_size: Number of frames that the detector processes at once; by default the model's `detector_chunk_size`.
            Smaller chunks need less memory and give the same result.
        fps: Use this many frames per second, by the times at which they are shown; all of them while the video has
            fewer. Requires a video with times or a `frame_rate`.
        stride: Use every `stride`-th frame. Cannot be combined with `fps`.
        max_frames: The maximum number of frames to use.
        frame_rate: Frames per second of videos that have no times of their own: folders, lists and arrays of images.
        decoder: Decoder of video files; by default the processor's.
        strict: Whether a damaged video file is an error. Otherwise what can be decoded is used, with a warning.
        progress: Whether to show progress bars; by default only on a terminal.

    Raises:
        ValueError: if a value is of a wrong type or out of range, or both `fps` and `stride` are given.

    Example:
    ```python
    >>> from vita_hf.inference.options import SegmentationOptions

    >>> SegmentationOptions(threshold=0.5, stride=2).top_k is None
    True
    >>> SegmentationOptions(stride=0)
    Traceback (most recent call last):
    ValueError: stride must be positive, got 0

    ```
    """

    threshold: float = 0.3
    top_k: int | None = None
    one_label_per_query: bool = True
    classes: Sequence[str | int] | str | int | None = None
    mask_features: MaskFeatures = "auto"
    chunk_size: int | None = None
    fps: float | None = None
    stride: int | None = None
    max_frames: int | None = None
    frame_rate: float | None = None
    decoder: Decoder | None = None
    strict: bool = False
    progress: bool | None = None

    def __post_init__(self):
        for name, choices in {"mask_features": get_args(MaskFeatures), "decoder": (None, *get_args(Decoder))}.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
        self._check_types()
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold}")
        if self.classes is not None and not isinstance(self.classes, str | int) and not len(self.classes):
            raise ValueError("classes must name at least one class, got none")
        for name in ("top_k", "chunk_size", "fps", "stride", "max_frames", "frame_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("top_k", "chunk_size", "stride", "max_frames"):
            value = getattr(self, name)
            if value is not None and value != int(value):
                raise ValueError(f"{name} must be a whole number, got {value}")
        if self.fps is not None and self.stride is not None:
            raise ValueError("fps and stride both reduce the number of frames: pass only one of them")

    def _check_types(self) -> None:
        for name in ("one_label_per_query", "strict"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name in ("threshold", "top_k", "chunk_size", "fps", "stride", "max_frames", "frame_rate"):
            value = getattr(self, name)
            is_default = value is None and name != "threshold"
            if isinstance(value, bool) or not (is_default or isinstance(value, Real)):
                raise ValueError(f"{name} must be a number, got {value!r}")
        if not isinstance(self.classes, str | int | Sequence | NoneType):
            raise ValueError(f"classes must be names or indices of classes, got {self.classes!r}")

    @classmethod
    def for_scoring(cls, top_k: int) -> "SegmentationOptions":
        """Return the paper's rule for metrics: the best `top_k` pairs of a query and a label, with exact masks."""
        return cls(threshold=0.0, top_k=top_k, one_label_per_query=False, mask_features="exact", progress=False)

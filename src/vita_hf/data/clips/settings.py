"""How training clips are sampled and augmented."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator


class Settings(BaseModel):
    """
    Base class of all settings: immutable and strict, so that `True` or "5" does not pass as a number.

    Raises:
        pydantic.ValidationError: (a ValueError) if a value or a name is wrong; the message names the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _check_ascending(bounds: tuple) -> tuple:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected two ascending numbers, got {list(bounds)}")
    return bounds


Number = TypeVar("Number")
Probability = Annotated[float, Field(ge=0, le=1)]
# Tuples are not strict, because YAML has only lists.
Sizes = Annotated[tuple[PositiveInt, ...], Field(min_length=1, strict=False)]
Bounds = Annotated[tuple[Number, Number], AfterValidator(_check_ascending), Field(strict=False)]


class LargeScaleJitter(Settings):
    """
    Scale a frame at random, then crop and pad it to a square of `size` pixels.

    The longer side becomes `size` times a factor that is uniform in [`min_scale`, `max_scale`].
    """

    size: PositiveInt = 1024
    min_scale: float = Field(0.1, gt=0)
    max_scale: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _check_scales(self):
        if self.min_scale > self.max_scale:
            raise ValueError(f"expected min_scale ≤ max_scale, got {self.min_scale} and {self.max_scale}")
        return self


class ClipSettings(Settings):
    """
    How clips are sampled and augmented: the `clips` section of a recipe. The defaults are VITA's for YouTube-VIS 2019.

    Attributes:
        num_frames: T, the number of frames in a clip.
        frame_range: Largest distance, in frames, between the reference frame and any other frame.
        crop_probability: Probability of the drifting crop, drawn once per clip.
        crop_resize_short_edges: Before the crop, the shorter side is resized to one of these …
        crop_max_long_edge: … while the longer side stays within this; None for no limit.
        crop_size: Smallest and largest side of the crop, in pixels.
        short_edges: The shorter side is resized to one of these, drawn once per clip …
        max_long_edge: … while the longer side stays within this; None for no limit.
        flip_probability: Probability of the horizontal flip, drawn once per clip.
        max_rotation_degrees: Largest rotation of the frames of a clip made from a single image; 0 for no rotation.
        rotation_center: Bounds of the center's x and y, as fractions of the width and the height.
        large_scale_jitter: If set, replaces the crop and the resizing above.
        pad_value: Gray value in [0, 255] that the large-scale jitter pads with.
    """

    num_frames: PositiveInt = 5
    frame_range: int = Field(20, ge=0)
    crop_probability: Probability = 0.5
    crop_resize_short_edges: Sizes = (400, 500, 600)
    crop_max_long_edge: PositiveInt | None = 1333
    crop_size: Bounds[PositiveInt] = (384, 600)
    short_edges: Sizes = (288, 320, 352, 384, 416, 448, 480, 512)
    max_long_edge: PositiveInt | None = 768
    flip_probability: Probability = 0.5
    max_rotation_degrees: NonNegativeFloat = 15.0
    rotation_center: Bounds[NonNegativeFloat] = (0.4, 0.6)
    large_scale_jitter: LargeScaleJitter | None = None
    pad_value: int = Field(128, ge=0, le=255)

    @model_validator(mode="after")
    def _check_frame_range(self):
        if self.num_frames > 1 and self.frame_range == 0:
            raise ValueError("expected a frame_range of at least 1 for clips of several frames, got 0")
        return self

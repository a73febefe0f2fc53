"""Read the json of `VideoInstances.to_json`, and check every value in it."""

import codecs
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from ..ops.rle import MAX_PIXELS, RleError, decode_tracks, shorten

FORMAT = "vita_hf.VideoInstances/1"
_MAX_FRAMES = 10_000_000  # two days at 60 frames/s

_Int64 = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
_Index = Annotated[int, Field(ge=0, lt=1 << 63)]
_Seconds = Annotated[float, Field(ge=0)]
_Side = Annotated[int, Field(ge=1, le=MAX_PIXELS)]


class _Rle(TypedDict):
    size: Annotated[list[int], Field(fail_fast=True)]
    counts: str


class _Track(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    track_id: _Int64
    label: _Index
    score: Annotated[float, Field(ge=-3e38, le=3e38)]  # float32
    query_index: _Int64
    segmentations: Annotated[list[_Rle], Field(fail_fast=True)]


class Content(BaseModel):
    """The fields of the json, which may have others."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    format: Literal["vita_hf.VideoInstances/1"]
    size: tuple[_Side, _Side]
    num_frames: Annotated[int, Field(ge=0, le=_MAX_FRAMES)]
    fps: Annotated[float, Field(gt=0)] | None
    frame_indices: Annotated[list[_Index], Field(fail_fast=True)] | None
    frame_times: Annotated[list[_Seconds], Field(fail_fast=True)] | None = None  # missing in older files
    id2label: dict[_Int64, str] | None
    tracks: Annotated[list[_Track], Field(fail_fast=True)]


def read_content(content: bytes, where: str) -> Content:
    """
    Parse and check the json, except for the content of the masks.

    Args:
        content: The json, with or without a byte order mark.
        where: What error messages start with.

    Raises:
        ValueError: if it is not JSON, lacks a field, or has a wrong value; the message names its place.
    """
    try:
        result = Content.model_validate_json(content.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        raise ValueError(where + _describe(error.errors(include_url=False)[0])) from None
    height, width = result.size
    if height * width > MAX_PIXELS:
        raise ValueError(f"{where}: size: expected at most {MAX_PIXELS} pixels, got {height}×{width}")
    for track in result.tracks:
        sizes = {tuple(rle["size"]) for rle in track.segmentations}
        if sizes - {result.size}:
            others = shorten(sorted(sizes - {result.size}))
            raise ValueError(f"{where}: track {track.track_id}: expected masks of size {result.size}, got {others}")
    return result


def check_masks(content: Content) -> None:
    """
    Decode all masks, once their number is known to be right.

    Raises:
        ValueError: if an RLE is corrupt; the message names its track and frame.
    """
    if not content.num_frames:
        return
    tracks: list[Any] = [[rle["counts"] for rle in track.segmentations] for track in content.tracks]
    position = 0
    for batch in decode_tracks(tracks, content.size[0] * content.size[1]):
        if isinstance(batch, RleError):
            frame, problem = next(iter(batch.problems.items()))
            raise ValueError(f"track {content.tracks[position].track_id}, frame {frame}: {problem}")
        position += len(batch.areas)


def _describe(error: Any) -> str:
    """Describe one of pydantic's errors."""
    *parents, name = error["loc"] or ("format",)
    if error["type"] == "json_invalid":
        return f" is not JSON: {error['ctx']['error']}"
    if name == "format" and not parents:
        return f': expected an object with "format": "{FORMAT}", as VideoInstances.to_json writes'
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parents).removeprefix(".")
    if error["type"] == "missing":
        return f": {name!r} is missing" + (f" in {place}" if place else "")
    place += f"[{name}]" if isinstance(name, int) else f".{name}" if place else name
    return f": {place}: {error['msg'].replace('Input should be', 'expected')}, got {shorten(error['input'])}"

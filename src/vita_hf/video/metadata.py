"""What transformers' `VideoMetadata` says of a video: which frames were read, and when they are shown."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.video_utils import VideoMetadata

from .frame_source import Choice, Frame, FrameSource, FramesPerSecond, average_rate


@dataclass
class TimedMetadata(VideoMetadata):
    """Metadata of a video that may have no constant frame rate."""

    frame_times: list[float] | None = None

    @property
    def timestamps(self) -> list[float]:
        """Times of the sampled frames in seconds."""
        return super().timestamps if self.frame_times is None else self.frame_times


def choose_by_metadata(
    source: FrameSource, metadata: VideoMetadata | None, sampler: Callable | None, fps: float | None = None
) -> tuple[Choice | None, VideoMetadata | None]:
    """Return the choice of frames (None: all), by time if `fps` is given, and the metadata that it is based on."""
    if sampler is None:
        return None, metadata
    if metadata is None:
        metadata = VideoMetadata(total_num_frames=source.count_frames(), fps=source.fps)
        if fps is not None and source.timed:
            return FramesPerSecond(fps), metadata
    return sorted(int(index) for index in sampler(metadata=metadata)), metadata


def record_frames(frames: Iterable[Frame], read: list[Frame]) -> Iterator[Any]:
    """Yield the images of frames, and append the frames to `read` without them."""
    for frame in frames:
        read.append(frame._replace(image=None))
        yield frame.image


def complete_metadata(
    source: FrameSource, metadata: VideoMetadata | None, read: list[Frame], size: Sequence[int]
) -> VideoMetadata:
    """Complete the metadata once the frames have been read."""
    metadata = metadata or VideoMetadata(total_num_frames=len(read), fps=source.fps)
    indices, times = [frame.index for frame in read], [frame.time for frame in read]
    fps = average_rate(source, indices, times) if metadata.fps == source.fps else metadata.fps  # the caller's
    duration = metadata.total_num_frames / fps if fps else None
    return TimedMetadata(
        total_num_frames=metadata.total_num_frames,
        fps=fps,
        width=size[1],
        height=size[0],
        duration=metadata.duration or duration,
        video_backend=metadata.video_backend,
        frames_indices=indices,
        frame_times=[time for time in times if time is not None] if None not in times else None,
    )


__all__ = ["TimedMetadata", "choose_by_metadata", "complete_metadata", "record_frames"]

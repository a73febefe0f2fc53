"""Draw tracks over their video."""

import os
from pathlib import Path
from typing import Any

from ..progress import progress_bar
from ..text import short_name
from ..video.sources import open_video
from ..video.writer import check_output, video_writer
from .base import Tracks
from .contact_sheet import ContactSheet
from .painter import Painter
from .result_frames import read_result_frames


def render(
    result: Tracks,
    video: Any,
    path: str | os.PathLike,
    *,
    alpha: float = 0.5,
    contours: bool = True,
    labels: bool = True,
    scale: float = 1.0,
    fps: float | None = None,
    contact_sheet: str | os.PathLike | None = None,
    decoder: str = "pyav",
    progress: bool | None = None,
) -> Path:
    """
    Draw the tracks over the video's frames and write them, one frame in memory at a time.

    Args:
        result: The tracks. Where they overlap, the one with the best score is drawn.
        video: The video they were found in: a file, a folder of images, an address, or frames. If the result covers
            only some of its frames (`frame_indices`), only these are drawn.
        path: Where to write: `.mp4` (H.264; an odd last row or column is repeated), `.gif` (256 colors per frame), or
            a folder of `00000.png` …, numbered like the video's frames. It appears only when it is complete.
        alpha: Opacity of the masks, 0 … 1.
        contours: Whether to draw the outlines of the masks.
        labels: Whether to write track ids, class names and scores.
        scale: Size of the pictures relative to the video: above 1 to read labels in small videos, below 1 for smaller
            files.
        fps: Frame rate of the file. By default, frames are shown at the times at which the video shows them, with the
            video's sound in an `.mp4`; 10 per second if nothing says when.
        contact_sheet: Where to write a contact sheet as well, without decoding the video again; see
            [`~vita_hf.tracks.contact_sheet.plot`].
        decoder: Decoder of video files, "pyav" or "torchcodec".
        progress: Whether to show a progress bar; by default only on a terminal and in a notebook.

    Returns:
        `path`.

    Raises:
        ValueError: if the video lacks a frame or its frames have another size than the masks, or if an argument is out
            of range.
        FileExistsError: if `path` is a folder with content.
        ImportError: if a file is to be read or written and `av` is missing.

    Example:
    ```python
    >>> import tempfile
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from transformers import pipeline
    >>> from vita_hf.data.synthetic import SyntheticVideo
    >>> from vita_hf.inference.loading import SHIPPED_MODEL

    >>> video = np.stack([image for image, _ in SyntheticVideo(2, 0, length=4)])
    >>> result = pipeline("video-instance-segmentation", model=str(SHIPPED_MODEL), device="cpu")(video)
    >>> folder = Path(tempfile.mkdtemp())
    >>> result.render(video, folder / "overlay.mp4", scale=4, contact_sheet=folder / "sheet.png").name
    'overlay.mp4'

    ```
    """
    path = Path(path)
    check_output(path)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    for name, value in (("fps", fps), ("scale", scale)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    painter = Painter(result, alpha, contours, labels)
    source = open_video(video, decoder=decoder)
    sheet = None if contact_sheet is None else ContactSheet(result, contact_sheet)
    height, width = (max(1, round(scale * side)) for side in result.size)
    numbers = result.frame_numbers
    open_sound = source.open_sound if fps is None and path.suffix.lower() == ".mp4" else None
    with video_writer(path, fps or result.fps or 10, open_sound) as write:
        frames = read_result_frames(result, source)
        bar = {"description": f"{short_name(source.name)}: drawing", "total": result.num_frames, "unit": "frame"}
        for frame in progress_bar(frames, **bar, shown=progress):
            drawn = painter.draw(frame.image, frame.index, (height, width))
            write(drawn, numbers[frame.index], frame.time if fps is None else None)
            if sheet is not None:
                sheet.add(frame.image, frame.index)
    if sheet is not None:
        sheet.save()
    return path


__all__ = ["render"]

"""Small videos of noise, in memory and in files."""

import numpy as np
import pytest
from PIL import Image

FRAMES, HEIGHT, WIDTH = 5, 48, 64


def make_frames(num_frames=FRAMES, height=HEIGHT, width=WIDTH):
    frames = np.random.default_rng(0).integers(0, 80, (num_frames, height, width, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[10:30, 4 * index : 4 * index + 25] += 150
    return frames


def random_video(num_frames=3, height=20, width=30, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, channels), dtype=np.uint8)


def write_video(path, frames, rate=12):
    """Write (T, H, W, 3) uint8 frames without loss."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_images(folder, frames):
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder

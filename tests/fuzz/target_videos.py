"""Video files and animated images, damaged anywhere, read frame by frame as the pipeline does."""

import io
import random
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fuzz.driver import refusals
from fuzz.mutations import mutate_bytes
from vita_hf.video.frame_source import sample_frames
from vita_hf.video.images import to_rgb_tensor
from vita_hf.video.sources import open_video

HEIGHT, WIDTH, FRAMES = 48, 64, 8
KINDS = ("mp4", "mov", "webm", "mkv", "ts", "avi", "flv", "gif", "webp", "png")
CODECS = {"mov": "mjpeg", "webm": "libvpx", "avi": "mpeg4", "flv": "flv", "mkv": "libx264"}


@lru_cache
def make_video(kind: str) -> bytes:
    """Return a small file of a moving square."""
    frames = np.random.default_rng(0).integers(0, 60, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[10:30, 4 * index : 4 * index + 20] += 150
    file = io.BytesIO()
    if kind in ("webp", "png", "gif"):
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(file, kind, save_all=True, append_images=images[1:], duration=40)
        return file.getvalue()
    formats = {"mkv": "matroska", "ts": "mpegts"}
    with av.open(file, "w", format=formats.get(kind, kind), options={"fflags": "+bitexact"}) as container:
        container.metadata["title"] = "A moving square"
        stream = container.add_stream(CODECS.get(kind, "libx264"), rate=25)
        stream.height, stream.width = HEIGHT, WIDTH
        stream.codec_context.thread_count = 1  # the same bytes each time
        stream.pix_fmt = "yuvj420p" if kind == "mov" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def mutate(rng: random.Random) -> bytes:
    kind = rng.choice(KINDS)  # which the first byte tells
    return bytes([KINDS.index(kind)]) + mutate_bytes(rng, make_video(kind))


def check(path: Path) -> None:
    content = path.read_bytes()
    video = path.with_name(f"{path.name}.{KINDS[content[0] % len(KINDS)]}")
    video.write_bytes(content[1:])
    with refusals(path):
        read(open_video(video), None)
    with refusals(path):
        source = open_video(video, frame_rate=25, strict=True)
        read(source, sample_frames(source, fps=5))


def read(source, choice) -> None:
    times = [-1.0]
    for frame in source.read(choice):
        where = f"{source.name}, frame {frame.index}"
        assert to_rgb_tensor(frame.image, where).shape[0] == 3
        assert frame.time is None or times[-1] < frame.time < 1e6
        times.append(frame.time or 0.0)

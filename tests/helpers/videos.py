"""Small videos of noise, in memory and in files."""

from fractions import Fraction

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


def encode_video(
    path,
    frames,
    times=None,
    codec="libx264",
    rate=25,
    pix_fmt="yuv420p",
    options=None,
    sound=None,
    prepare=None,
    **colors,
):
    """
    Write (T, H, W, 3) uint8 frames as a camera would.

    Args:
        times: When frames are shown, in seconds; by default they follow each other at `rate`.
        options: Of the encoder.
        sound: (codec, samples): float32 (2, n) at 48 kHz.
        prepare: Called with the stream before it is used.
        colors: `color_trc`, `colorspace` … of each frame and the stream, as numbers of FFmpeg.
    """
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        for name, value in colors.items():
            setattr(stream.codec_context, name, value)
        if prepare is not None:
            prepare(stream)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream(sound[0], rate=48000, layout="stereo") if sound else None
        for index, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if pix_fmt != "rgb24":
                image = image.reformat(format=pix_fmt, dst_colorspace=colors.get("colorspace"))
            for name, value in colors.items():
                setattr(image, name, value)
            if times is not None:
                image.pts, image.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(image))
        container.mux(stream.encode())
        if audio is not None:
            for start in range(0, sound[1].shape[1], 1024):
                samples = np.ascontiguousarray(sound[1][:, start : start + 1024])
                block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
                block.sample_rate, block.pts = 48000, start
                container.mux(audio.encode(block))
            container.mux(audio.encode())
    return path


def plain_frames(colors, height=48, width=64):
    """Frames (T, h, w, 3) that are each of one color."""
    return np.stack([np.full((height, width, 3), color, dtype=np.uint8) for color in colors])

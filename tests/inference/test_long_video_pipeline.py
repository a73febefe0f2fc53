"""Videos of thousands of frames through the pipeline: memory, time, and what is left in the temporary folder.

Each run is a process of its own, so that its peak memory is its own: this file is the script that it runs as well.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

import vita_hf  # noqa: F401 - registers the pipeline

SIZES = {"large": (360, 640), "small": (96, 128)}


def make_video(path: Path, num_frames: int, height: int, width: int) -> Path:
    """A bright square that moves over a gradient."""
    av = pytest.importorskip("av")
    background = np.linspace(0, 120, width, dtype=np.uint8)[None, :, None].repeat(height, 0).repeat(3, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for index in range(num_frames):
            frame = background.copy()
            left = index % (width - height // 4)
            frame[height // 3 : height // 3 + height // 4, left : left + height // 4] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def run_here(model: str, video: str, mask_features: str) -> None:
    """Print what one video takes."""
    torch.set_num_threads(1)
    segmenter = pipeline("video-instance-segmentation", model=model, device="cpu")
    options = {"mask_features": mask_features, "threshold": 0.0, "top_k": 3, "chunk_size": 18}
    segmenter(video, max_frames=40, **options)
    start = time.process_time()
    result = segmenter(video, **options)
    seconds = time.process_time() - start
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    characters = sum(len(rle["counts"]) for track in result.masks for rle in track)
    facts = {"frames": result.num_frames, "tracks": len(result), "seconds": seconds, "characters": characters}
    print(json.dumps(facts | {"peak_mib": int(peak.split()[1]) / 1024}))


def run(model: Path, video: Path, mask_features: str) -> dict:
    command = [sys.executable, __file__, str(model), str(video), mask_features]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{mask_features}: {facts}")
    return facts


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {count: make_video(folder / f"{count}.mp4", count, *SIZES["large"]) for count in (200, 2000)}


@pytest.mark.slow  # minutes: 2,000 frames
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("mask_features", ["disk", "recompute"])
def test_2000_frames_need_hardly_more_than_200(tiny_model, videos, mask_features):
    short, long, again = (run(tiny_model, videos[count], mask_features) for count in (200, 2000, 200))
    assert (short["frames"], long["frames"], long["tracks"]) == (200, 2000, 3)
    assert long["peak_mib"] - short["peak_mib"] <= 300
    # Processor time, before and after: what else the machine does changes it by more than the video's length.
    assert long["seconds"] / 2000 <= 1.15 * (short["seconds"] + again["seconds"]) / 2 / 200


@pytest.mark.slow  # minutes: 10,000 frames
@pytest.mark.timeout(3600)
def test_10000_frames(tiny_model, tmp_path):
    facts = run(tiny_model, make_video(tmp_path / "long.mp4", 10_000, *SIZES["small"]), "auto")
    assert (facts["frames"], facts["tracks"]) == (10_000, 3)


if __name__ == "__main__":
    run_here(*sys.argv[1:])

import math

import numpy as np
import pytest

from helpers.videos import random_video, write_video
from vita_hf.video.reader import VideoReader


@pytest.mark.parametrize("degrees, quarters", [(90, 1), (180, 2), (-90, 3)])
def test_rotated_video_files_are_turned_upright(tmp_path, degrees, quarters):
    video = random_video(2)
    path = write_video(tmp_path / "video.mp4", video)
    data = bytearray(path.read_bytes())
    # The transformation matrix of the track header: 40 bytes after its version field, 16.16 and 2.30 fixed point.
    cos, sin = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    matrix = [cos << 16, -sin << 16, 0, sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    frames = np.stack(list(VideoReader(path).frames()))
    np.testing.assert_array_equal(frames, np.rot90(video, k=quarters, axes=(1, 2)))


def test_length_of_a_video_file(tmp_path):
    """MP4 counts its frames; Matroska says only how long it is."""
    av = pytest.importorskip("av")
    for name in ("video.mp4", "video.mkv"):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=5)
            stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
            for _ in range(13):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        reader = VideoReader(tmp_path / name)
        assert (reader.length, reader.fps, reader.count_frames(), reader.rereadable) == (13, 5, 13, True)

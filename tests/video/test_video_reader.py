import logging
import math
import re
from fractions import Fraction

import numpy as np
import pytest

from helpers.videos import encode_video, make_frames, plain_frames, random_video, write_video
from vita_hf.video.frame_source import FramesPerSecond
from vita_hf.video.reader import VIDEO_SUFFIXES, VideoReader

av = pytest.importorskip("av")


def read(path, **options):
    return list(VideoReader(path, **options).read())


def write_matrix(path, matrix):
    """Replace the transformation matrix in the track header of an mp4."""
    data = bytearray(path.read_bytes())
    # 40 bytes after its version field, 16.16 and 2.30 fixed point.
    (a, b), (c, d) = matrix
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("degrees, quarters", [(90, 1), (180, 2), (-90, 3)])
def test_rotated_video_files_are_turned_upright(tmp_path, degrees, quarters):
    video = random_video(2)
    cos, sin = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    path = write_matrix(write_video(tmp_path / "video.mp4", video), [(cos, -sin), (sin, cos)])
    frames = np.stack(list(VideoReader(path).frames()))
    np.testing.assert_array_equal(frames, np.rot90(video, k=quarters, axes=(1, 2)))


@pytest.mark.parametrize(
    "matrix, change",
    [
        ([(-1, 0), (0, 1)], lambda frame: frame[:, ::-1]),
        ([(1, 0), (0, -1)], lambda frame: frame[::-1]),
        ([(0, 1), (1, 0)], lambda frame: frame.transpose(1, 0, 2)),
        ([(0, -1), (-1, 0)], lambda frame: frame[::-1, ::-1].transpose(1, 0, 2)),
    ],
)
def test_mirrored_video_files_are_mirrored_back(tmp_path, matrix, change):
    """As a front camera writes them."""
    video = random_video(2)
    path = write_matrix(write_video(tmp_path / "video.mp4", video), matrix)
    for frame, expected in zip(read(path), video, strict=True):
        np.testing.assert_array_equal(frame.image, change(expected))


def test_length_of_a_video_file(tmp_path):
    """MP4 counts its frames; Matroska says only how long it is."""
    for name in ("video.mp4", "video.mkv"):
        reader = VideoReader(encode_video(tmp_path / name, plain_frames([0] * 13), rate=5))
        assert (reader.length, reader.fps, reader.count_frames(), reader.rereadable) == (13, 5, 13, True)
        assert reader.duration == pytest.approx(2.6, abs=0.002)


# ---------------------------------------------------------------- times


TIMES = [0, 0.02, 0.04, 0.06, 0.08, 0.1, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["phone.mp4", "webcam.mkv"])
def test_frames_have_the_times_of_the_file(tmp_path, name):
    path = encode_video(tmp_path / name, plain_frames(range(0, 200, 20)), TIMES, options={"bf": "2"})
    frames = read(path)
    np.testing.assert_allclose([frame.time for frame in frames], TIMES, atol=0.0011)
    chosen = list(VideoReader(path).read(FramesPerSecond(1)))
    assert [frame.index for frame in chosen] == [0, 6, 7, 8, 9]
    np.testing.assert_allclose([frame.time for frame in chosen], [0, 1, 2, 3, 4], atol=0.0011)


def test_times_count_from_the_start_of_the_file(tmp_path):
    """MPEG-TS starts at 1.4 s; here the sound begins half a second before the picture."""
    sound = ("aac", np.zeros((2, 48000), np.float32))
    times = [0.5 + index / 25 for index in range(10)]
    path = encode_video(tmp_path / "video.ts", plain_frames([0] * 10), times, sound=sound)
    np.testing.assert_allclose([frame.time for frame in read(path)], times, atol=0.03)  # and the encoder's delay


class _Stamped:
    """A frame of which nothing but the time stamp is known."""

    def __init__(self, time):
        self.pts, self.time_base = time, 1


@pytest.mark.parametrize(
    "stamps, expected",
    [
        ([None, None, None], [0, 0.1, 0.2]),
        ([0, None, 0.2], [0, 0.1, 0.2]),
        ([5, 5.1, 5.2], [0, 0.1, 0.2]),
        ([5.5, 5.6], [0.5, 0.6]),
        ([5, 5, 5.1, 5.1], [0, 0.001, 0.1, 0.101]),  # doubled
        ([5, 5.1, 0.2, 0.3], [0, 0.1, 0.2, 0.3]),  # two recordings in one file
        ([5, 5.1, 99999, 99999.5], [0, 0.1, 0.2, 0.7]),
        ([99999, 99999.5], [0, 0.5]),
    ],
)
def test_times_increase_whatever_the_file_says(stamps, expected):
    from vita_hf.video.decoding import number_and_time

    frames = list(number_and_time(map(_Stamped, stamps), 5.0, 10.0))
    assert [frame.index for frame in frames] == list(range(len(stamps)))
    np.testing.assert_allclose([frame.time for frame in frames], expected, atol=1e-6)


# ---------------------------------------------------------------- colors and geometry


def of_yuv(path, y, u, v, height=48, width=64, frames=1, **colors):
    """A video of one color, given as it is stored."""
    video = np.full((frames, height * 3 // 2, width), 0, dtype=np.uint8)
    video[:, :height], chroma = y, video[:, height:].reshape(frames, 2, -1)
    chroma[:, 0], chroma[:, 1] = u, v
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for name, value in colors.items():
            setattr(stream.codec_context, name, value)
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="yuv420p")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    "height, colors, expected",
    [
        (48, {}, (254, 0, 0)),  # BT.601
        (720, {}, (255, 24, 0)),  # BT.709
        (48, {"colorspace": 1}, (255, 24, 0)),
        (720, {"colorspace": 5}, (254, 0, 0)),
        (48, {"color_primaries": 9}, (255, 10, 0)),  # BT.2020
        (48, {"color_range": 2}, (238, 14, 13)),
    ],
)
def test_colors_without_tags_are_what_browsers_assume(tmp_path, height, colors, expected):
    (frame,) = read(of_yuv(tmp_path / "video.mp4", 81, 90, 240, height, **colors))
    assert np.abs(frame.image.reshape(-1, 3) - np.array(expected)).max() <= 1


@pytest.mark.parametrize("transfer, white, gray", [(18, 0.75, 0.5), (16, 0.58069, 0.42)], ids=["HLG", "PQ"])
def test_hdr_is_mapped_to_sdr(tmp_path, transfer, white, gray):
    """Diffuse white (203 cd/m²) is 75 % of an HLG signal and 58 % of a PQ signal."""
    video = np.zeros((2, 72, 64), dtype=np.uint16)
    for frame, signal in zip(video, (white, gray)):
        frame[:48], frame[48:] = round(64 + 876 * signal), 512
    with av.open(str(tmp_path / "hdr.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p10le"
        codec = stream.codec_context
        codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range = 9, transfer, 9, 1
        for content in video:
            frame = av.VideoFrame.from_ndarray(content, format="yuv420p10le")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    bright, middle = (frame.image.reshape(-1, 3) for frame in read(tmp_path / "hdr.mkv"))
    assert bright.min() >= 250
    assert 100 < middle.min() and middle.max() < 190
    assert np.ptp(middle) <= 2  # still gray


@pytest.mark.parametrize(
    "ratio, size",
    [(Fraction(2), (48, 128)), (Fraction(1, 2), (96, 64)), (Fraction(1001, 1000), (48, 64)), (Fraction(99), (48, 64))],
)
def test_pixels_become_square(tmp_path, ratio, size):
    def set_ratio(stream):
        stream.codec_context.sample_aspect_ratio = ratio

    frames = plain_frames([(250, 0, 0)])
    frames[:, :, 32:] = (0, 0, 250)
    (frame,) = read(encode_video(tmp_path / "video.mp4", frames, prepare=set_ratio))
    assert frame.image.shape == (*size, 3)
    middle = size[1] // 2
    left, right = frame.image[:, : middle - 4].mean((0, 1)), frame.image[:, middle + 4 :].mean((0, 1))
    assert left[0] > 200 > 60 > left[2] and right[2] > 200 > 60 > right[0]


def test_frames_that_change_their_size_are_scaled_to_the_first(tmp_path):
    """As recordings of calls have them."""
    small = encode_video(tmp_path / "small.ts", plain_frames([200] * 3, 48, 64))
    large = encode_video(tmp_path / "large.ts", plain_frames([50] * 3, 96, 128))
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    frames = read(tmp_path / "both.ts")
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 6
    assert [round(frame.image.mean() / 50) for frame in frames] == [4, 4, 4, 1, 1, 1]
    np.testing.assert_allclose(np.diff([frame.time for frame in frames]), 0.04, atol=0.001)


# ---------------------------------------------------------------- which stream


def with_streams(path, values, pictures=0, sound=False):
    """A video with one gray value per stream; pictures are covers."""
    with av.open(str(path), "w") as container:
        streams = [
            container.add_stream("mjpeg" if index < pictures else "libx264", rate=25) for index in range(len(values))
        ]
        for index, stream in enumerate(streams):
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p" if index < pictures else "yuv420p"
            if index < pictures:
                stream.disposition = av.stream.Disposition.attached_pic
        for stream, gray in zip(streams, values):
            for frame in plain_frames([gray] * (1 if stream.disposition else 3)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return path


def test_covers_are_ignored(tmp_path):
    frames = read(with_streams(tmp_path / "video.mp4", [250, 100], pictures=1))
    assert [round(frame.image.mean() / 50) for frame in frames] == [2, 2, 2]
    with pytest.raises(ValueError, match=r"song\.mp4 cannot be decoded as a video: it has no video stream but a cover"):
        VideoReader(with_streams(tmp_path / "song.mp4", [250], pictures=1))


def test_of_several_video_streams_the_one_that_is_read_is_named(tmp_path, caplog):
    reader = VideoReader(with_streams(tmp_path / "video.mp4", [100, 200]))
    assert "video.mp4 has 2 video streams: only stream 0 (64×48) is read" in caplog.text
    assert [round(image.mean() / 50) for image in reader.frames()] == [2, 2, 2]


def test_suffixes_of_cameras():
    assert {".ts", ".mts", ".m2ts", ".3gp", ".flv", ".vob", ".mxf"} <= VIDEO_SUFFIXES


# ---------------------------------------------------------------- damage


def damaged_packet(path):
    """One damaged packet in the middle."""
    frames = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    encode_video(path, frames, options={"bf": "0", "g": "10"})
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][15]
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + packet.size] = bytes([255]) * packet.size
    path.write_bytes(data)


def cut(path, fraction=0.6, **options):
    frames = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    encode_video(path, frames, **{"options": {"bf": "0"}, **options})
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])


DAMAGED = {
    "packet.mp4": (damaged_packet, 15, 29, "Invalid data found when processing input"),
    "cut.mkv": (cut, 17, 17, r"the file ends after 0\.\d+ of 1\.20 s"),
    "cut.webm": (lambda path: cut(path, codec="libvpx", options={}), 17, 18, r"the file ends after 0\.\d+ of 1\.20 s"),
    "cut.ts": (cut, 17, 18, "missing"),
    "cut.avi": (lambda path: cut(path, codec="mpeg4", options={}), 10, 11, "missing"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_of_damaged_files_the_rest_is_used(tmp_path, caplog, name):
    make, at, rest, reason = DAMAGED[name]
    path = tmp_path / name
    make(path)
    reader = VideoReader(path, name="holiday")
    counts = [sum(1 for _ in reader.read()) for _ in range(2)]
    assert counts[0] == counts[1] and abs(counts[0] - rest) <= 1
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    match = re.match(rf"holiday is damaged from frame (\d+) on: .*{reason}.*; what can be decoded is used", warning)
    assert match and abs(int(match[1]) - at) <= 1, warning
    with pytest.raises(ValueError, match=rf"holiday is damaged from frame {match[1]} on: .*{reason}"):
        list(VideoReader(path, name="holiday", strict=True).read())


@pytest.mark.parametrize(
    "name, codec, pix_fmt",
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mov", "mjpeg", "yuvj420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("a.flv", "flv", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_whole_files_are_not_suspected(tmp_path, caplog, name, codec, pix_fmt):
    path = encode_video(tmp_path / name, make_frames(12), codec=codec, pix_fmt=pix_fmt)
    assert len(read(path, strict=True)) == 12
    assert not caplog.records


def test_a_file_with_an_edit_list_is_not_suspected(tmp_path, caplog):
    """Cutting without encoding leaves frames that are decoded but not shown."""
    path = encode_video(tmp_path / "video.mp4", make_frames(20), options={"bf": "0"})
    data = bytearray(path.read_bytes())
    start = data.index(b"elst") + 4 + 8  # behind version and count: duration, media time, rate
    half = int.from_bytes(data[start : start + 4], "big") // 2
    scale = int.from_bytes(data[(found := data.index(b"mdhd") + 4) + 12 : found + 16], "big")
    data[start : start + 4] = half.to_bytes(4, "big")
    data[start + 4 : start + 8] = round(0.4 * scale).to_bytes(4, "big")
    path.write_bytes(data)
    reader = VideoReader(path, strict=True)
    assert (sum(1 for _ in reader.read()), reader.length) == (10, 10)
    assert not caplog.records


def test_tags_of_any_encoding(tmp_path):
    """Old cameras and AVI tools write Latin-1."""
    path = tmp_path / "holiday.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Cafe Xau Lait"
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for frame in make_frames(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuvj420p")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"Cafe Xau" in content
    path.write_bytes(content.replace(b"Cafe Xau", b"Caf\xe9 \xe0u"))
    assert len(read(path)) == 4


def test_a_downloaded_file_is_read_at_several_places_at_once(tmp_path):
    path = encode_video(tmp_path / "video.mkv", make_frames(12), sound=("aac", np.zeros((2, 24000), np.float32)))
    reader = VideoReader(path)
    reader.file = path.open("rb")  # as after a download
    with reader.open_sound() as sound:
        blocks = sound.decode(audio=0)
        for one, other in zip(reader.frames(), reader.frames(), strict=True):
            assert np.array_equal(one, other)
            next(blocks)
    assert VideoReader(encode_video(tmp_path / "silent.mkv", make_frames(2))).open_sound() is None


def test_frames_that_would_take_all_memory(tmp_path):
    with av.open(str(tmp_path / "bomb.avi"), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = 12_000, 12_000, "monob"
        frame = av.VideoFrame(12_000, 12_000, "monob")
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"bomb\.avi cannot be decoded .* \(frames have at most 134217728 pixels\)"):
        read(tmp_path / "bomb.avi")


def test_errors_are_words(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError) as caught:
        VideoReader(tmp_path / "text.mp4")
    assert str(caught.value).endswith("text.mp4 cannot be decoded as a video: Invalid data found when processing input")

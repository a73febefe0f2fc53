"""Drawing frames and masks from rows, and what is said of broken ones."""

import builtins
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_files import HEIGHT, SQUARE, WIDTH, compressed, make_ytvis, random_mask, write
from vita_hf.data.clips.masks import frame_masks
from vita_hf.data.datasets import read_ytvis
from vita_hf.data.frames import BrokenSampleError, decode_frame
from vita_hf.data.schema import has_objects

ROW = {"video_id": 7, "height": HEIGHT, "width": WIDTH}


@pytest.fixture
def row(tmp_path):
    path = write(tmp_path / "train.json", make_ytvis(tmp_path))
    return read_ytvis(path, tmp_path / "frames", cache_dir=tmp_path / "cache").rows[1]


def test_frames_are_what_pillow_decodes(row):
    for frame in row["frames"]:
        image = decode_frame(frame, row)
        assert image.mode == "RGB"
        expected = np.asarray(Image.open(frame["path"]))
        assert (np.asarray(image) == expected).all()
        embedded = {"path": "x.jpg", "bytes": Path(frame["path"]).read_bytes()}
        assert (np.asarray(decode_frame(embedded, row)) == expected).all()


def test_a_drawn_frame_opens_its_file_and_no_other(tmp_path, monkeypatch):
    path = write(tmp_path / "train.json", make_ytvis(tmp_path, videos=2, length=9))
    rows = read_ytvis(path, tmp_path / "frames", cache_dir=tmp_path / "cache").rows
    opened, real = [], builtins.open

    def counting(file, *args, **kwargs):
        if str(file).endswith(".jpg"):
            opened.append(str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", counting)
    monkeypatch.setattr(io, "open", counting)
    row = rows[1]
    assert opened == []  # neither does a row
    drawn = [3, 3, 7]
    for t in drawn:
        decode_frame(row["frames"][t], row)
    assert opened == [str(tmp_path / "frames" / f"v2/{t:05d}.jpg") for t in drawn]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (WIDTH, HEIGHT), (204, 204, 204)).convert(mode).save(path)
    pixels = np.asarray(decode_frame({"path": str(path), "bytes": None}, ROW))
    assert pixels.shape == (HEIGHT, WIDTH, 3) and np.abs(pixels.astype(int) - 204).max() <= 2


def test_frames_are_turned_upright(tmp_path):
    pixels = np.zeros((WIDTH, HEIGHT, 3), np.uint8)
    pixels[: WIDTH // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be seen turned clockwise by 90°: the upper half is the right one
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    image = decode_frame({"path": str(tmp_path / "x.png"), "bytes": None}, ROW)
    assert (np.asarray(image) == np.rot90(pixels, -1)).all()


def break_frame(frame: dict, how: str) -> None:
    path = Path(frame["path"])
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-60])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "size":
        Image.new("RGB", (WIDTH, HEIGHT - 1)).save(path)


@pytest.mark.parametrize(
    "how, kind, message",
    [
        ("missing", "frame-missing", "no such file"),
        ("truncated", "frame-unreadable", "cannot be decoded as an image: .*truncated"),
        ("empty", "frame-unreadable", "cannot be decoded as an image"),
        ("size", "frame-size", "is 23×32, expected its video's height×width, 24×32"),
    ],
)
def test_broken_frames(row, how, kind, message):
    break_frame(row["frames"][2], how)
    with pytest.raises(BrokenSampleError, match=f"video 2, .*v2/00002.jpg: {message}") as caught:
        decode_frame(row["frames"][2], row)
    assert (caught.value.kind, caught.value.video_id) == (kind, 2)
    assert caught.value.file == row["frames"][2]["path"]
    sent = pickle.loads(pickle.dumps(caught.value))
    assert str(sent) == str(caught.value) and sent.kind == kind
    decode_frame(row["frames"][1], row)  # its neighbor is fine


def test_damaged_metadata():
    """Pillow ends in a TypeError here: a resolution that is text, read while the image is turned upright."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    Image.new("RGB", (HEIGHT, WIDTH)).save(file := io.BytesIO(), "JPEG", exif=exif)
    description, resolution = b"\x01\x0e\x00\x02", b"\x01\x1a\x00\x02"  # tag and type
    assert file.getvalue().count(description) == 1
    assert decode_frame({"path": "5.jpg", "bytes": file.getvalue()}, ROW).size == (WIDTH, HEIGHT)
    with pytest.raises(BrokenSampleError, match=r"video 7, 5\.jpg \(embedded\): cannot be decoded"):
        decode_frame({"path": "5.jpg", "bytes": file.getvalue().replace(description, resolution)}, ROW)


def test_broken_embedded_frame():
    with pytest.raises(BrokenSampleError, match=r"video 7, 5\.jpg \(embedded\): cannot be decoded"):
        decode_frame({"path": "5.jpg", "bytes": b"no image"}, ROW)


def mask_of(segmentation):
    (mask,) = frame_masks(ROW, [{"id": 5, "segmentations": [segmentation]}], 0, [])
    return mask


def test_masks():
    for seed in range(5):
        mask = random_mask(seed)
        mask[0, 0] = seed % 2
        got = mask_of({"rle": compressed(mask)["counts"], "polygons": None})
        assert got.dtype == bool and got.shape == (HEIGHT, WIDTH) and (got == mask).all()
    assert not mask_of(None).any()
    far = [20.0, 14.0, 28.0, 14.0, 28.0, 20.0, 20.0, 20.0]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[4:12, 4:12] = expected[14:20, 20:28] = True
    assert (mask_of({"rle": None, "polygons": [SQUARE, far]}) == expected).all()


@pytest.mark.parametrize(
    "counts, message",
    [
        (compressed(random_mask(0, 30, 40))["counts"], "run lengths add up to 1200, expected height·width = 768"),
        (compressed(random_mask(0))["counts"][:-1], "corrupt RLE"),
        ("~~~", "character '~' at position 0 of its counts is not part of the format"),
        ("", "corrupt RLE"),
    ],
)
def test_corrupt_run_lengths(counts, message):
    with pytest.raises(BrokenSampleError, match=f"video 7, annotation 5, frame 0: .*{message}") as caught:
        mask_of({"rle": counts, "polygons": None})
    assert caught.value.kind == "rle-corrupt"


def test_has_objects():
    here, crowd = {"iscrowd": False, "segmentations": [None, {}]}, {"iscrowd": True, "segmentations": [{}]}
    absent = {"iscrowd": False, "segmentations": [None, None]}
    assert has_objects({"instances": [crowd, here]})
    assert not has_objects({"instances": [crowd, absent]}) and not has_objects({"instances": []})


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_refused(tmp_path, dtype):
    """Pillow would clip them: a ramp of 16 bits becomes white."""
    path = tmp_path / "deep.tiff"
    Image.fromarray(np.linspace(0, 65535, 24 * 32).reshape(24, 32).astype(dtype)).save(path)
    row = {"video_id": 7, "height": 24, "width": 32}
    for frame in ({"path": str(path), "bytes": None}, {"path": "deep.tiff", "bytes": path.read_bytes()}):
        with pytest.raises(BrokenSampleError, match=r"video 7, .*deep\.tiff.*: expected 8 bits per channel") as caught:
            decode_frame(frame, row)
        assert caught.value.kind == "frame-unreadable"


def test_an_animation_is_no_frame(tmp_path):
    images = [Image.new("RGB", (WIDTH, HEIGHT), (gray, 0, 0)) for gray in (0, 200)]
    images[0].save(tmp_path / "x.webp", save_all=True, append_images=images[1:])
    with pytest.raises(BrokenSampleError, match=r"x\.webp: .* expected one picture, got an animation of 2"):
        decode_frame({"path": str(tmp_path / "x.webp"), "bytes": None}, ROW)


@pytest.mark.parametrize("polygon", [[0, 0, 4e8, 0, 4e8, 4e8], [0, 0, 1e300, 0, 1, 1], [1.0] * 7, [float("nan")] * 6])
def test_polygons_of_foreign_rows_are_checked_before_pycocotools_sees_them(polygon):
    """Rows of the Hub come without the reader; these polygons would end the process."""
    row = {"video_id": 7, "height": 24, "width": 32}
    instance = {"id": 3, "segmentations": [{"rle": None, "polygons": [polygon]}]}
    with pytest.raises(BrokenSampleError, match="video 7, annotation 3, frame 0: "):
        frame_masks(row, [instance], 0, [])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_frame(tmp_path):
    """Opening one waits for a writer."""
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BrokenSampleError, match=r"pipe.jpg: is not a file"):
        decode_frame({"path": str(tmp_path / "pipe.jpg"), "bytes": None}, ROW)

import sys
import types

import numpy as np
import pytest
from PIL import Image

from vita_hf.video.images import image_size, list_frames, read_image


def test_list_frames_sorts_numbers_and_skips_other_files(tmp_path):
    for name in ("10.jpg", "9.PNG", "a2.png", "a10.png", "notes.txt", ".hidden.jpg", "00001.jpeg"):
        (tmp_path / name).touch()
    assert [path.name for path in list_frames(tmp_path)] == ["00001.jpeg", "9.PNG", "10.jpg", "a2.png", "a10.png"]


def test_images_that_differ_only_in_their_suffix_are_one_frame(tmp_path):
    for name in ("0.png", "1.png", "0.jpg", "1.jpg", "2.jpg", "3.png", "4.webp"):
        (tmp_path / name).touch()
    assert [path.name for path in list_frames(tmp_path)] == ["0.jpg", "1.jpg", "2.jpg", "3.png", "4.webp"]
    (tmp_path / "5.png").touch()  # now most are png
    assert [path.name for path in list_frames(tmp_path)] == ["0.png", "1.png", "2.jpg", "3.png", "4.webp", "5.png"]


def test_heic_and_avif(tmp_path, monkeypatch):
    Image.new("RGB", (30, 20), (200, 100, 50)).save(tmp_path / "image.avif")
    assert image_size(tmp_path / "image.avif") == (20, 30)
    assert np.abs(np.asarray(read_image(tmp_path / "image.avif")).astype(int) - [200, 100, 50]).max() < 5
    (tmp_path / "image.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"image\.HEIC cannot be decoded .*need the pillow-heif package: pip install"):
        read_image(tmp_path / "image.HEIC")
    opened = []
    module = types.ModuleType("pillow_heif")
    module.register_heif_opener = lambda: opened.append(True)
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    with pytest.raises(ValueError, match=r"image\.HEIC cannot be decoded"):
        read_image(tmp_path / "image.HEIC")
    assert opened


def test_whatever_pillow_raises_names_the_file(tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGB", (30, 20)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = bytes([255]) * 8  # the size
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"image\.png cannot be decoded as an image"):
        read_image(path)


def save_upright(path, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation, expected", [(1, (20, 30)), (3, (20, 30)), (6, (30, 20)), (8, (30, 20))])
def test_size_of_an_image_turned_upright(tmp_path, orientation, expected):
    assert image_size(save_upright(tmp_path / "image.jpg", (30, 20), orientation)) == expected


def test_addresses_that_cannot_be_reached():
    with pytest.raises(OSError, match=r"cannot download http://127\.0\.0\.1:9/image\.png: "):
        read_image("http://127.0.0.1:9/image.png")

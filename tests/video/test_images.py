import pytest
from PIL import Image

from vita_hf.video.images import image_size, list_frames, read_image


def test_list_frames_sorts_numbers_and_skips_other_files(tmp_path):
    for name in ("10.jpg", "9.PNG", "a2.png", "a10.png", "notes.txt", ".hidden.jpg", "00001.jpeg"):
        (tmp_path / name).touch()
    assert [path.name for path in list_frames(tmp_path)] == ["00001.jpeg", "9.PNG", "10.jpg", "a2.png", "a10.png"]


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

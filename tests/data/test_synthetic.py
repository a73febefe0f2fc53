import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api

from vita_hf.data.synthetic import CATEGORY_NAMES, SyntheticVideo, write_synthetic_dataset
from vita_hf.scoring import GroundTruth


def test_a_frame_depends_on_seed_index_and_time_only():
    short, long = SyntheticVideo(3, 5, length=4), SyntheticVideo(3, 5, length=400)
    image, masks = long.frame(3)  # out of order
    for (_, _), time in zip(short, range(3)):
        short.frame(time)
    again, masks_again = short.frame(3)
    assert np.array_equal(image, again) and np.array_equal(masks, masks_again)
    assert np.array_equal(short.labels, long.labels)
    for other in (SyntheticVideo(4, 5), SyntheticVideo(3, 6)):
        assert not np.array_equal(other.frame(3)[0], image)


def test_masks_are_disjoint_and_show_the_objects():
    """Outside all masks a video is its background: an object's pixels differ from those of the frame without it."""
    for index in range(6):
        video = SyntheticVideo(0, index)
        _, masks = video.frame(0)
        assert masks.sum(0).max() <= 1
        video._shutter = video._noise = 0
        full, masks = video.frame(2)
        video._objects = []
        empty, _ = video.frame(2)
        different = (full.astype(int) != empty.astype(int)).any(-1)
        covered = masks.any(0)
        assert different[covered].mean() > 0.98
        rim = covered.copy()  # anti-aliased edges reach one pixel beyond the masks
        for axis in (0, 1):
            rim |= np.roll(rim, 1, axis) | np.roll(rim, -1, axis)
        assert not different[~rim].any()


def test_what_the_videos_are_made_of():
    """Over two dozen videos: every category, occlusion, leaving and re-entering, look-alikes, blur and light."""
    seen, occluded, returning, twins, light, blurred = set(), 0, 0, 0, [], 0
    for index in range(24):
        video = SyntheticVideo(1, index, (48, 64), length=40)
        seen |= set(video.labels.tolist())
        colors = [tuple(item.colors[0]) for item in video._objects]
        twins += len(set(colors)) < len(colors)
        light.append(video._light.amplitudes.sum())
        blurred += video._shutter > 0
        video._shutter = 0
        masks = np.stack([masks for _, masks in video])  # (T, N, H, W)
        for track in masks.any((2, 3)).T:
            returning += np.count_nonzero(np.diff(np.concatenate(([0], track.astype(int), [0]))) == 1) > 1
        for number, alone in enumerate(video._objects):
            video._objects = [alone]
            occluded += video.frame(20)[1].sum() > 1.2 * masks[20, number].sum() > 0
    assert seen == set(range(len(CATEGORY_NAMES)))
    assert occluded >= 8 and returning >= 8
    assert 6 <= twins <= 18 and 4 <= blurred <= 16
    assert max(light) > 0.25 and min(light) < 0.05


def test_written_set(tmp_path):
    path = write_synthetic_dataset(tmp_path / "set", seed=2, videos=3, size=(64, 80), length=5)
    content = json.loads(path.read_text())
    assert [video["length"] for video in content["videos"]] == [5, 5, 5]
    assert [category["name"] for category in content["categories"]] == list(CATEGORY_NAMES)
    assert [annotation["id"] for annotation in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    )
    for number, entry in enumerate(content["videos"]):
        video = SyntheticVideo(2, number, (64, 80), 5)
        annotations = [a for a in content["annotations"] if a["video_id"] == entry["id"]]
        tracks = [track for track in np.stack([m for _, m in video], 1) if track.any()]
        labels = [label for label, track in zip(video.labels, np.stack([m for _, m in video], 1)) if track.any()]
        assert [a["category_id"] - 1 for a in annotations] == labels
        for annotation, track in zip(annotations, tracks):
            for time in range(5):
                rle, box = annotation["segmentations"][time], annotation["bboxes"][time]
                if rle is None:
                    assert not track[time].any() and box is None and annotation["areas"][time] is None
                    continue
                assert np.array_equal(mask_api.decode(rle).astype(bool), track[time])
                rows, columns = np.nonzero(track[time])
                assert box == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert annotation["areas"][time] == track[time].sum()
        for time, name in enumerate(entry["file_names"]):
            jpeg = io.BytesIO()
            Image.fromarray(video.frame(time)[0]).save(jpeg, "jpeg", quality=92)
            assert (tmp_path / "set" / "JPEGImages" / name).read_bytes() == jpeg.getvalue()
    GroundTruth(path)  # the metric's own reader takes it


def test_several_workers_write_the_same(tmp_path):
    one = write_synthetic_dataset(tmp_path / "one", seed=2, videos=3, size=(32, 48), length=2)
    two = write_synthetic_dataset(tmp_path / "two", seed=2, videos=3, size=(32, 48), length=2, workers=2)
    assert one.read_bytes() == two.read_bytes()
    frames = sorted(path.relative_to(one.parent) for path in one.parent.rglob("*.jpg"))
    assert len(frames) == 6
    for frame in frames:
        assert (one.parent / frame).read_bytes() == (two.parent / frame).read_bytes()


def test_stopped_and_started_again(tmp_path, monkeypatch):
    """The same call goes on; images of something else, or of other arguments, are not touched."""
    arguments = {"seed": 3, "videos": 2, "size": (32, 64), "length": 2}
    write_synthetic_dataset(tmp_path / "whole", **arguments)
    with monkeypatch.context() as patched:
        patched.setattr("vita_hf.data.synthetic.annotation_file_content", None)
        with pytest.raises(TypeError):
            write_synthetic_dataset(tmp_path / "parts", **arguments)
    with pytest.raises(FileExistsError, match=r"parts holds results of another run \(seed differ\)"):
        write_synthetic_dataset(tmp_path / "parts", **{**arguments, "seed": 4})
    write_synthetic_dataset(tmp_path / "parts", **arguments)
    whole, parts = ({p.relative_to(d): p.read_bytes() for p in d.rglob("*.*")} for d in tmp_path.iterdir())
    assert whole == parts

    (tmp_path / "mine/JPEGImages").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="JPEGImages was not written by an earlier run: choose another output"):
        write_synthetic_dataset(tmp_path / "mine", **arguments)


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"size: expected .* at least 32 pixels, got 16×128"):
        SyntheticVideo(0, 0, (16, 128))
    with pytest.raises(ValueError, match="length: expected at least 1 frame, got 0"):
        SyntheticVideo(0, 0, length=0)
    with pytest.raises(ValueError, match="videos: expected at least 1, got 0"):
        write_synthetic_dataset(tmp_path, seed=0, videos=0)
    with pytest.raises(IndexError, match="frame 16 of a video of 16 frames"):
        SyntheticVideo(0, 0).frame(16)
    write_synthetic_dataset(tmp_path, seed=0, videos=1, size=(32, 32), length=1)
    with pytest.raises(FileExistsError, match=r"annotations\.json exists"):
        write_synthetic_dataset(tmp_path, seed=0, videos=1, size=(32, 32), length=1)

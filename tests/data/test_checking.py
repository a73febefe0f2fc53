"""Every fault is listed with its place; what is listed as an error stops the readers or the drawing."""

import pytest
from PIL import Image

from helpers.annotation_files import HEIGHT, SQUARE, WIDTH, compressed, make_ytvis, random_mask, track, write
from vita_hf.data.annotations import KINDS, AnnotationError
from vita_hf.data.checking import check_annotations
from vita_hf.data.clips.masks import frame_masks
from vita_hf.data.datasets import read_ytvis
from vita_hf.data.frames import BrokenSampleError, decode_frame

MASK = compressed(random_mask(0))


@pytest.fixture
def content(tmp_path):
    return make_ytvis(tmp_path)


def mask_of(content, mask):
    content["annotations"][0]["segmentations"][2] = mask


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# name → what breaks it (given the content and the folder of frames), then kind, video, annotation, frame, message
FAULTS = {
    "missing frame": (
        lambda c, f: (f / "v2/00001.jpg").unlink(),
        ("frame-missing", 2, None, 1, "v2/00001.jpg: no such file"),
    ),
    "truncated frame": (
        lambda c, f: truncate(f / "v2/00001.jpg"),
        ("frame-unreadable", 2, None, 1, "v2/00001.jpg: cannot be decoded as an image"),
    ),
    "frame that is no image": (
        lambda c, f: (f / "v2/00001.jpg").write_text("hello"),
        ("frame-unreadable", 2, None, 1, "v2/00001.jpg: cannot be decoded as an image"),
    ),
    "frame of another size": (
        lambda c, f: Image.new("RGB", (9, 8)).save(f / "v3/00003.jpg"),
        ("frame-size", 3, None, 3, "is 8×9, expected its video's height×width, 24×32"),
    ),
    "length": (
        lambda c, f: c["videos"][0].update(length=5),
        ("length", 1, None, None, "`length` is 5, but it names 4 frames"),
    ),
    "segmentations": (
        lambda c, f: c["annotations"][0]["segmentations"].append(None),
        ("length", 1, 11, None, "`segmentations` has 5 entries, expected one for each of the 4 frames"),
    ),
    "boxes": (
        lambda c, f: c["annotations"][0]["bboxes"].pop(),
        ("length", 1, 11, None, "`bboxes` has 3 entries, expected one for each of the 4 frames"),
    ),
    "unknown category": (
        lambda c, f: c["annotations"][0].update(category_id=1),
        ("unknown-category", 1, 11, None, "`category_id` 1: expected one of 2, 5"),
    ),
    "unknown video": (
        lambda c, f: c["annotations"].append(track(99, 8, 2, [MASK] * 4)),
        ("unknown-video", 8, 99, None, "the file has no video with this id"),
    ),
    "polygon of two points": (
        lambda c, f: c["annotations"][1]["segmentations"].__setitem__(3, [SQUARE, [1, 2, 3, 4]]),
        (
            "polygon",
            1,
            12,
            3,
            "polygon 1: expected at least three points [x0, y0, …] of finite numbers, got [1, 2, 3, 4]",
        ),
    ),
    "polygon far too large": (
        lambda c, f: c["annotations"][1]["segmentations"].__setitem__(3, [SQUARE, [0, 0, 1e9, 0, 1e9, 1e9]]),
        ("polygon", 1, 12, 3, "polygon 1: coordinates and outline must not exceed 4194304 pixels"),
    ),
    "run lengths of another size": (
        lambda c, f: mask_of(c, compressed(random_mask(0, WIDTH, HEIGHT))),
        ("rle-size", 1, 11, 2, "the RLE has size [32, 24], the video [height, width] = [24, 32]"),
    ),
    "corrupt string": (
        lambda c, f: mask_of(c, {**MASK, "counts": MASK["counts"][:-1]}),
        ("rle-corrupt", 1, 11, 2, "corrupt RLE"),
    ),
    "corrupt list": (
        lambda c, f: mask_of(c, {**MASK, "counts": [700, -1, 69]}),
        ("rle-corrupt", 1, 11, 2, "run 1 has the negative length -1"),
    ),
    "empty list": (
        lambda c, f: mask_of(c, {**MASK, "counts": []}),
        ("rle-corrupt", 1, 11, 2, "corrupt RLE"),
    ),
    "video without annotations": (
        lambda c, f: c.update(annotations=[a for a in c["annotations"] if a["video_id"] != 3]),
        ("no-annotations", 3, None, None, "training leaves it out"),
    ),
    "video with crowds only": (
        lambda c, f: [a.update(iscrowd=1) for a in c["annotations"] if a["video_id"] == 3],
        ("no-annotations", 3, None, None, "training leaves it out"),
    ),
    "video id twice": (
        lambda c, f: c["videos"].append({**c["videos"][0]}),
        ("duplicate-id", 1, None, None, "an earlier entry has the same id 1"),
    ),
    "annotation id twice": (
        lambda c, f: c["annotations"][5].update(id=11),
        ("duplicate-id", 3, 11, None, "an earlier annotation has the same id"),
    ),
    "category id twice": (
        lambda c, f: c["categories"].append({"id": 2, "name": "cube"}),
        ("duplicate-id", None, None, None, "an earlier entry has the same id 2"),
    ),
    "segmentation of another kind": (
        lambda c, f: mask_of(c, "mask"),
        ("malformed", 1, 11, 2, "expected null, an RLE or polygons, got 'mask'"),
    ),
}


def test_one_fault_hides_no_other(content, tmp_path):
    """All of one video, all of one annotation; and of a file whose categories are another data set's."""
    for fault in ("length", "missing frame of the same video", "unknown category", "corrupt string"):
        name = "missing frame" if fault.startswith("missing") else fault
        if name == "missing frame":
            (tmp_path / "frames" / "v1" / "00003.jpg").unlink()
        else:
            FAULTS[name][0](content, tmp_path / "frames")
    content["annotations"].append(track(99, 8, 2, [MASK] * 4))
    path = write(tmp_path / "train.json", content)
    problems = check_annotations(path, tmp_path / "frames", progress=False)
    assert {(problem.kind, problem.video_id, problem.annotation_id) for problem in problems} == {
        ("unknown-video", 8, 99),
        ("length", 1, None),
        ("unknown-category", 1, 11),
        ("rle-corrupt", 1, 11),
        ("frame-missing", 1, None),
    }
    content["annotations"] = [entry for entry in content["annotations"] if entry["video_id"] != 3]
    content["annotations"].append(track(31, 3, 2, [MASK] * 5))
    write(path, content)
    of_video = [p.kind for p in check_annotations(path, tmp_path / "frames", progress=False) if p.video_id == 3]
    assert set(of_video) == {"length"}  # not: no annotations
    of_another = check_annotations(path, tmp_path / "frames", dataset="ovis", progress=False)
    assert [problem.kind for problem in of_another] == ["length", "unknown-video", "length", "length", "malformed"]


def test_nothing_to_say_of_good_data(content, tmp_path):
    path = write(tmp_path / "train.json", content)
    assert check_annotations(path, tmp_path / "frames", progress=False) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(content, tmp_path, fault):
    break_it, (kind, video, annotation, frame, message) = FAULTS[fault]
    frames = tmp_path / "frames"
    break_it(content, frames)
    path = write(tmp_path / "train.json", content)
    (problem,) = check_annotations(path, frames, progress=False)
    assert (problem.kind, problem.video_id, problem.annotation_id, problem.frame) == (kind, video, annotation, frame)
    assert message in problem.message and problem.file == str(path)
    for part in (path, video, annotation, frame):
        assert part is None or str(part) in str(problem)
    if frame is not None:
        assert problem.frame_name == f"v{video}/{frame:05d}.jpg" and problem.frame_name in str(problem)

    # an error stops training with the same words, a warning doesn't
    def use_everything():
        for row in read_ytvis(path, frames, cache_dir=tmp_path / "cache").rows:
            for frame, image in enumerate(row["frames"]):
                decode_frame(image, row)
                frame_masks(row, row["instances"], frame, [])

    if problem.severity == "error":
        with pytest.raises(ValueError) as caught:
            use_everything()
        assert problem.message in str(caught.value)
        assert video is None or f"video {video}" in str(caught.value)
        drawn = kind.startswith("frame") or fault == "corrupt string"  # the rest is seen by the reader
        assert type(caught.value) is (BrokenSampleError if drawn else AnnotationError)
    else:
        use_everything()


def test_all_faults_at_once(content, tmp_path):
    """All problems are listed: those of the tables first, then those of masks, then those of frames."""
    together = ["missing frame", "frame of another size", "boxes", "unknown video", "polygon of two points"]
    for fault in together:
        FAULTS[fault][0](content, tmp_path / "frames")
    path = write(tmp_path / "train.json", content)
    kinds = [problem.kind for problem in check_annotations(path, tmp_path / "frames", progress=False)]
    assert kinds == ["length", "unknown-video", "polygon", "frame-missing", "frame-size"]
    assert {KINDS[kind] for kind in kinds} == {"error", "warning"}


def test_coco(tmp_path, content):
    image = {"id": 1, "height": HEIGHT, "width": WIDTH, "file_name": "v1/00000.jpg"}
    entry = {"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 1, 2, 2], "segmentation": [[1, 2, 3, 4]]}
    coco = {"images": [image, {**image, "id": 2, "file_name": "none.jpg"}], "annotations": [entry]}
    path = write(tmp_path / "coco.json", {**coco, "categories": content["categories"]})
    found = check_annotations(path, tmp_path / "frames", form="coco", progress=False)
    assert [(p.kind, p.video_id, p.frame_name) for p in found] == [
        ("polygon", 1, "v1/00000.jpg"),
        ("no-annotations", 1, None),
        ("no-annotations", 2, None),
        ("frame-missing", 2, "none.jpg"),
    ]
    (problem,) = check_annotations(path, tmp_path / "frames", form="coco", dataset="coco", progress=False)
    assert "its 2 categories (2 ball, 5 wheel, …) are not the 80 of coco" in problem.message


def test_files_of_another_kind(tmp_path, content):
    (tmp_path / "bad.json").write_text("{")
    (problem,) = check_annotations(tmp_path / "bad.json", tmp_path, progress=False)
    assert problem.kind == "malformed" and "not json" in problem.message
    (problem,) = check_annotations(
        write(tmp_path / "empty.json", {**content, "videos": [], "annotations": []}), tmp_path, progress=False
    )
    assert problem.message == "`videos`: expected a list of at least one, got []"
    with pytest.raises(FileNotFoundError, match="no such folder of frames"):
        check_annotations(tmp_path / "bad.json", tmp_path / "none")

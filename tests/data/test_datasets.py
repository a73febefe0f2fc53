"""Annotation files to rows: every form of mask, class maps, the cache, errors."""

import json
import logging
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as mask_api

from helpers.annotation_files import (
    HEIGHT,
    SQUARE,
    WIDTH,
    compressed,
    make_ytvis,
    random_mask,
    track,
    uncompressed,
    write,
    write_frames,
)
from vita_hf.data.annotations import AnnotationError
from vita_hf.data.categories import CATEGORIES, COCO_TO_DATASET, category_ids
from vita_hf.data.datasets import generate_rows, read_coco, read_ytvis
from vita_hf.data.layout import find_split
from vita_hf.data.schema import VIDEO_FEATURES, without_empty


@pytest.fixture
def content(tmp_path):
    return make_ytvis(tmp_path)


@pytest.fixture
def read(tmp_path):
    def read(content, reader=read_ytvis, **options):
        path = write(tmp_path / "train.json", content)
        return reader(path, tmp_path / "frames", cache_dir=tmp_path / "cache", **options)

    return read


def decode(segmentation: dict) -> np.ndarray:
    return mask_api.decode({"size": [HEIGHT, WIDTH], "counts": segmentation["rle"].encode()})


def test_rows_say_what_the_json_says(content, read, tmp_path):
    dataset = read(content)
    assert dataset.id2label == {0: "ball", 1: "wheel"}  # by ascending category id: 2, 5
    assert dataset.name == "train"
    assert dataset.rows.features == VIDEO_FEATURES
    rows = {row["video_id"]: row for row in dataset.rows}
    assert list(rows) == [video["id"] for video in content["videos"]]
    for video in content["videos"]:
        row = rows[video["id"]]
        assert (row["height"], row["width"]) == (HEIGHT, WIDTH)
        expected = [{"bytes": None, "path": str(tmp_path / "frames" / name)} for name in video["file_names"]]
        assert row["frames"] == expected
        entries = [entry for entry in content["annotations"] if entry["video_id"] == video["id"]]
        for got, entry in zip(row["instances"], entries, strict=True):
            assert (got["id"], got["iscrowd"]) == (entry["id"], False)
            assert got["label"] == {2: 0, 5: 1}[entry["category_id"]]
            for mask, original in zip(got["segmentations"], entry["segmentations"], strict=True):
                if original is None:
                    assert mask is None
                elif isinstance(original, dict):
                    assert mask == {"rle": original["counts"], "polygons": None}
                else:
                    assert mask == {"rle": None, "polygons": original}


def test_box_and_segmentation_are_both_needed(content, read):
    masks = [compressed(random_mask(t)) for t in range(4)]
    boxes = [[1, 1, 2, 2], None, [0, 0, 0, 0], []]
    content["annotations"] = [track(1, 1, 2, [masks[0], masks[1], masks[2], masks[3]], bboxes=boxes)]
    (instance,) = read(content).rows[0]["instances"]
    assert [mask is not None for mask in instance["segmentations"]] == [True, False, True, False]


def test_segmentations_alone_decide_where_there_are_no_boxes(content, read):
    masks = [compressed(random_mask(0)), None, [], compressed(random_mask(1))]
    entry = track(1, 1, 2, masks)
    del entry["bboxes"]
    content["annotations"] = [entry]
    (instance,) = read(content).rows[0]["instances"]
    assert [mask is not None for mask in instance["segmentations"]] == [True, False, False, True]


@pytest.mark.parametrize("first_pixel", [0, 1])
def test_uncompressed_run_lengths(content, read, first_pixel):
    masks = [random_mask(seed) for seed in range(4)]
    masks[0][0, 0] = first_pixel
    content["annotations"] = [track(1, 1, 2, [uncompressed(mask) for mask in masks])]
    (instance,) = read(content).rows[0]["instances"]
    for got, mask in zip(instance["segmentations"], masks, strict=True):
        assert (decode(got) == mask).all() and got["rle"] == compressed(mask)["counts"]


def test_polygons_without_area_are_dropped(content, read, caplog):
    short, odd = [1.0, 1.0, 5.0, 5.0], [1.0, 1.0, 5.0, 5.0, 1.0, 5.0, 2.0]
    content["annotations"] = [track(7, 1, 2, [[SQUARE, short], [odd], [short, SQUARE, odd], None])]
    with caplog.at_level(logging.WARNING):
        (instance,) = read(content).rows[0]["instances"]
    assert [mask and mask["polygons"] for mask in instance["segmentations"]] == [[SQUARE], None, [SQUARE], None]
    assert "dropped 4 polygons" in caplog.text and "video 1, annotation 7), frame 0 (v1/00000.jpg)" in caplog.text


def test_objects_with_a_box_and_no_mask_are_named(content, read, caplog, tmp_path):
    """Beside a masked object they train as background."""
    content["annotations"] = [track(7, 1, 2, [[SQUARE]] * 4), track(8, 1, 2, [[SQUARE], None, [], [SQUARE]])]
    content["annotations"][1]["bboxes"] = [[1, 1, 5, 5]] * 4
    assert len(read(content).rows[0]["instances"]) == 2
    assert "objects without a mask train as background, 2 times, the first: " in caplog.text
    assert "annotations[1] (video 1, annotation 8), frame 1 (v1/00001.jpg): the object has a box, but no" in caplog.text
    caplog.clear()
    image = {"id": 1, "height": HEIGHT, "width": WIDTH, "file_name": "v1/00000.jpg"}
    common = {"image_id": 1, "category_id": 2, "iscrowd": 0, "bbox": [4, 4, 8, 8]}
    objects = [{"id": 7, "segmentation": [SQUARE], **common}, {"id": 8, "segmentation": [], **common}]
    read({**content, "images": [image], "annotations": objects}, read_coco, target=None)
    assert "background, 1 times, the first: " in caplog.text and "annotations[1] (video 1, annotation 8)" in caplog.text


def test_crowds_are_kept_and_without_empty_leaves_them_out(content, read, caplog):
    mask = compressed(random_mask(0))
    content["annotations"] = [
        track(1, 1, 2, [mask] * 4, iscrowd=1),
        track(2, 2, 2, [None] * 4),
        track(3, 3, 2, [mask] * 4, iscrowd=1),
        track(4, 3, 5, [None, None, None, mask]),
    ]
    rows = read(content).rows
    assert [[i["iscrowd"] for i in row["instances"]] for row in rows] == [[True], [False], [True, False]]
    with caplog.at_level(logging.INFO):
        assert without_empty(rows)["video_id"] == [3]
    assert "left out 2 of 3" in caplog.text
    # rows in another order, and some of them
    assert without_empty(rows.select([2, 0, 2]))["video_id"] == [3, 3]
    with pytest.raises(ValueError, match="none of the 2 videos or images has an annotated object"):
        without_empty(rows.select([0, 1]))


def test_without_empty_agrees_with_a_loop_over_many_rows(content, read):
    rng = np.random.default_rng(0)
    mask = compressed(random_mask(0))
    name = content["videos"][0]["file_names"][0]
    content["videos"] = [{"id": key, "height": HEIGHT, "width": WIDTH, "file_names": [name]} for key in range(2500)]
    content["annotations"] = [
        track(key, int(rng.integers(2500)), 2, [mask if rng.random() < 0.7 else None], iscrowd=int(rng.random() < 0.3))
        for key in range(2500)
    ]
    rows = read(content).rows
    expected = [
        row["video_id"] for row in rows if any(not i["iscrowd"] and any(i["segmentations"]) for i in row["instances"])
    ]
    assert 500 < len(expected) < 2000
    assert without_empty(rows)["video_id"] == expected


# ---------------------------------------------------------------------------------------------------------- classes
def named(dataset: str) -> list[dict]:
    return [{"id": key, "name": name} for key, name in zip(category_ids(dataset), CATEGORIES[dataset])]


@pytest.mark.parametrize("dataset, last", [("ytvis2019", "tennis_racket"), ("ytvis2021", "zebra"), ("ovis", "Vehical")])
def test_video_data_sets(content, read, dataset, last):
    content["categories"] = named(dataset)
    mask = compressed(random_mask(0))
    size = len(content["categories"])
    content["annotations"] = [track(1, 1, 1, [mask] * 4), track(2, 1, size, [mask] * 4)]
    dataset = read(content, categories=dataset)
    assert [i["label"] for i in dataset.rows[0]["instances"]] == [0, size - 1]
    assert len(dataset.id2label) == size and dataset.id2label[size - 1] == last


def test_file_of_another_data_set(content, read):
    content["categories"] = named("ytvis2021")  # 40 as well
    with pytest.raises(
        AnnotationError, match=r"train.json: its 40 categories \(1 airplane.*are not the 40 of ytvis2019"
    ):
        read(content, categories="ytvis2019")
    with pytest.raises(ValueError, match="categories: expected one of ytvis2019, ytvis2021, ovis or None, got 'lvis'"):
        read(content, categories="lvis")


def make_coco(tmp_path) -> dict:
    """Image k has one annotation of the k-th category, and image 9999 all forms of masks."""
    write_frames(tmp_path / "frames", ["a.jpg"])
    image = {"height": HEIGHT, "width": WIDTH, "file_name": "a.jpg"}
    entries = [
        {"id": 1000 + key, "image_id": key, "category_id": key, "iscrowd": 0, "bbox": [1, 1, 2, 2]}
        | {"segmentation": [SQUARE]}
        for key in category_ids("coco")
    ]
    crowd = uncompressed(random_mask(3))
    entries += [
        {"id": 1, "image_id": 9999, "category_id": 1, "iscrowd": 1, "bbox": [1, 1, 2, 2], "segmentation": crowd},
        {
            "id": 2,
            "image_id": 9999,
            "category_id": 3,
            "iscrowd": 0,
            "bbox": [1, 1, 2, 2],
            "segmentation": [SQUARE, SQUARE],
        },
    ]
    images = [{"id": key, **image} for key in (*category_ids("coco"), 9999)]
    return {"images": images, "annotations": entries, "categories": named("coco")}


def test_coco(read, tmp_path):
    dataset = read(make_coco(tmp_path), read_coco)
    assert (len(dataset.rows), len(dataset.id2label), dataset.name) == (81, 80, "coco")
    assert dataset.id2label[79] == "toothbrush"
    labels = {row["video_id"]: row["instances"][0]["label"] for row in dataset.rows}
    assert (labels[1], labels[13], labels[90]) == (0, 11, 79)
    last = dataset.rows[80]
    assert last["video_id"] == 9999 and len(last["frames"]) == 1
    crowd, pair = last["instances"]
    assert crowd["iscrowd"] and (decode(crowd["segmentations"][0]) == random_mask(3)).all()
    assert pair["segmentations"] == [{"rle": None, "polygons": [SQUARE, SQUARE]}]


@pytest.mark.parametrize("target", ["ytvis2019", "ytvis2021", "ovis"])
def test_coco_in_the_classes_of_a_video_data_set(read, tmp_path, target):
    dataset = read(make_coco(tmp_path), read_coco, target=target)
    assert tuple(dataset.id2label.values()) == CATEGORIES[target]
    found = {row["video_id"]: [i["label"] + 1 for i in row["instances"]] for row in dataset.rows}
    mixed = found.pop(9999)
    assert found == {key: [COCO_TO_DATASET[target][key]] if key in COCO_TO_DATASET[target] else [] for key in found}
    # person and car: values of the released code
    assert mixed == {"ytvis2019": [1, 6], "ytvis2021": [26, 5], "ovis": [1, 25]}[target]
    assert len(without_empty(dataset.rows)) == {"ytvis2019": 21, "ytvis2021": 23, "ovis": 17}[target] + 1


def test_own_coco_classes(read, tmp_path):
    content = make_coco(tmp_path)
    content["categories"] = [{"id": 90, "name": "Tooth_Brush"}, {"id": 3, "name": "car"}]
    content["annotations"] = [e for e in content["annotations"] if e["category_id"] in (3, 90)]
    own = read(content, read_coco, target=None)
    assert own.id2label == {0: "car", 1: "Tooth_Brush"} and own.name == "train"
    assert sorted(i["label"] for row in own.rows for i in row["instances"]) == [0, 0, 1]


# ------------------------------------------------------------------------------------------------------------ cache
def test_second_time_reads_no_json_and_an_edit_is_noticed(content, read, tmp_path, monkeypatch):
    first = read(content)
    path = tmp_path / "train.json"
    before = os.stat(path)
    parsed = []
    monkeypatch.setattr(
        "vita_hf.data.datasets.read_annotations", lambda *args: parsed.append(args) or pytest.fail("parsed again")
    )
    again = read_ytvis(path, tmp_path / "frames", cache_dir=tmp_path / "cache")
    assert not parsed and again.rows.to_list() == first.rows.to_list() and again.id2label == first.id2label
    monkeypatch.undo()

    text = path.read_text()
    edited = text.replace('"ball"', '"bell"')  # as long as before
    path.write_text(edited)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert read_ytvis(path, tmp_path / "frames", cache_dir=tmp_path / "cache").id2label[0] == "bell"


def test_lost_summary_is_made_again(content, read, tmp_path):
    first = read(content)
    (summary,) = (tmp_path / "cache" / "vita_hf").iterdir()
    summary.unlink()
    assert (
        read_ytvis(tmp_path / "train.json", tmp_path / "frames", cache_dir=tmp_path / "cache").id2label
        == first.id2label
    )


def test_workers_share_memory_mapped_files(content, read):
    dataset = read(content)
    assert all(os.path.isfile(file["filename"]) for file in dataset.rows.cache_files) and dataset.rows.cache_files
    sent = pickle.dumps(dataset)
    assert len(sent) < 8000
    received = pickle.loads(sent).rows
    assert received.cache_files == dataset.rows.cache_files  # the same files, opened again
    assert received.to_list() == dataset.rows.to_list()


def test_package_does_not_import_datasets():
    code = "import sys, vita_hf, vita_hf.data.categories; assert 'datasets' not in sys.modules, 'datasets'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_data_does_not_import_the_model():
    # the package itself imports the model: what counts is what these files ask for
    from pathlib import Path

    import vita_hf.data

    for path in Path(vita_hf.data.__file__).parent.glob("*.py"):
        imports = [
            line for line in path.read_text().splitlines() if line.lstrip().startswith(("from ..", "from vita_hf"))
        ]
        assert not [line for line in imports if "model" in line or "evaluation" in line], path


# ----------------------------------------------------------------------------------------------------------- errors
MASK = compressed(random_mask(0))
FAULTS = {
    "rle of another size": (
        lambda c: c["annotations"][0]["segmentations"].__setitem__(2, compressed(random_mask(0, 32, 24))),
        r"train.json, annotations\[0\] \(video 1, annotation 11\), frame 2 \(v1/00002.jpg\): the RLE has size "
        r"\[32, 24\], the video \[height, width\] = \[24, 32\]",
    ),
    "run lengths of another sum": (
        lambda c: c["annotations"][0]["segmentations"].__setitem__(1, {"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
        r"video 1, annotation 11\), frame 1 .*run lengths add up to 10, expected height·width = 768",
    ),
    "counts of another kind": (
        lambda c: c["annotations"][0]["segmentations"].__setitem__(1, {"size": [HEIGHT, WIDTH], "counts": 5}),
        r"video 1, annotation 11\), frame 1 .*RLE counts must be a string.*, got int",
    ),
    "segmentation of another kind": (
        lambda c: c["annotations"][0]["segmentations"].__setitem__(1, 5),
        r"video 1, annotation 11\), frame 1 .*expected null, an RLE or polygons, got 5",
    ),
    "too few segmentations": (
        lambda c: c["annotations"][3]["segmentations"].pop(),
        r"train.json, annotations\[\d\] \(video 2, annotation 22\): `segmentations` has 3 entries, expected one",
    ),
    "too many boxes": (
        lambda c: c["annotations"][3]["bboxes"].append(None),
        r"train.json, annotations\[\d\] \(video 2, annotation 22\): `bboxes` has 5 entries, expected one for each",
    ),
    "length": (
        lambda c: c["videos"][1].update(length=9),
        r"train.json, videos\[\d\] \(video 2\): `length` is 9, but it names 4 frames",
    ),
    "no size": (
        lambda c: c["videos"][1].pop("height"),
        r"train.json, videos\[\d\] \(video 2\): expected positive integers \[height, width\], got \[None, 32\]",
    ),
    "no frames": (
        lambda c: c["videos"][1].update(file_names=[]),
        r"train.json, videos\[\d\] \(video 2\): expected the names of the frames, got \[\]",
    ),
    "unknown category": (
        lambda c: c["annotations"][2].update(category_id=3),
        r"train.json, annotations\[\d\] \(video 2, annotation 21\): `category_id` 3: expected one of 2, 5",
    ),
    "annotation id twice": (
        lambda c: c["annotations"][2].update(id=22),
        r"train.json, annotations\[\d\] \(video 2, annotation 22\): an earlier annotation has the same id",
    ),
    "no annotation id": (
        lambda c: c["annotations"][2].pop("id"),
        r"train.json, annotations\[2\] \(video 2\): expected an integer `id` of 64 bits, got None",
    ),
    "crowd": (
        lambda c: c["annotations"][2].update(iscrowd="yes"),
        r"train.json, annotations\[\d\] \(video 2, annotation 21\): `iscrowd`: expected 0 or 1, got 'yes'",
    ),
    "video id twice": (
        lambda c: c["videos"].append(c["videos"][1]),
        r"train.json, videos\[\d\] \(video 2\): an earlier entry has the same id 2",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_their_place_or_are_skipped(content, read, fault, caplog):
    break_it, message = FAULTS[fault]
    break_it(content)
    with pytest.raises(AnnotationError, match=message):
        read(content)
    with caplog.at_level(logging.WARNING):
        dataset = read(content, skip_broken=True)
    left = dataset.rows["video_id"]
    assert dataset.skipped == 1 and len(left) == 2 and 3 in left
    assert "skipped 1 video with 1 problem, the first: " in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read(content, skip_broken=True)
    assert "skipped 1 video" in caplog.text  # from the cache as well


def test_annotation_of_an_unknown_video_costs_no_video(content, read):
    content["annotations"].append(track(99, 77, 2, [MASK]))
    with pytest.raises(
        AnnotationError, match=r"train.json, annotations\[6\] \(video 77, annotation 99\): the file has no"
    ):
        read(content)
    dataset = read(content, skip_broken=True)
    assert dataset.skipped == 0 and len(dataset.rows) == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "train.json: the file is not json"),
        ("[]", "expected an object with the list 'videos', as in YouTube-VIS and OVIS; got list"),
        ('{"images": []}', "'videos'.*; got an object with images"),
        ('{"videos": [], "annotations": []}', "`categories`: expected a list of at least one"),
        ('{"videos": [], "categories": [{"id": 1, "name": "a"}]}', "`videos`: expected a list of at least one"),
        (
            '{"videos": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
            "an earlier category has the name 'a'",
        ),
        (
            '{"videos": [{"id": "x"}], "categories": []}',
            "`categories`: expected a list of at least one|`id`: expected an integer, got None",
        ),
    ],
)
def test_files_of_another_kind(tmp_path, text, message):
    (tmp_path / "frames").mkdir()
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_ytvis(tmp_path / "train.json", tmp_path / "frames", cache_dir=tmp_path / "cache")


def test_missing_files_and_folders(content, read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such annotation file: .*none\.json"):
        read_ytvis(tmp_path / "none.json", tmp_path)
    path = write(tmp_path / "train.json", content)
    with pytest.raises(FileNotFoundError, match=r"no such folder of frames: .*elsewhere"):
        read_ytvis(path, tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"frames that .*train.json names are not below .*v1/00000.jpg"):
        read_ytvis(path, tmp_path, cache_dir=tmp_path / "cache")


def test_without_annotations(content, read):
    content["annotations"] = None  # as in the official validation files
    assert [row["instances"] for row in read(content).rows] == [[], [], []]


def test_rows_are_made_by_a_plain_generator(content, tmp_path):
    path = write(tmp_path / "train.json", content)
    summary = tmp_path / "summary.json"
    rows = list(generate_rows(str(path), "frames", "ytvis", (None, None), False, str(summary)))
    assert [row["video_id"] for row in rows] == [1, 2, 3]
    assert json.loads(summary.read_text())["classes"] == ["ball", "wheel"]


# ---------------------------------------------------------------------------------------------------------- folders
@pytest.mark.parametrize(
    "dataset, split, annotations, images",
    [
        ("ytvis2019", "train", "ytvis_2019/train.json", "ytvis_2019/train/JPEGImages"),
        ("ytvis2021", "valid", "ytvis_2021/valid.json", "ytvis_2021/valid/JPEGImages"),
        ("ovis", "test", "ovis/annotations/test.json", "ovis/test"),
        ("coco", "train", "coco/annotations/instances_train2017.json", "coco/train2017"),
        ("coco", "val", "coco/annotations/instances_val2017.json", "coco/val2017"),
    ],
)
def test_layouts(tmp_path, dataset, split, annotations, images):
    with pytest.raises(FileNotFoundError, match=f"no {split} split of {dataset} below .*looked for\n.*{annotations}"):
        find_split(dataset, tmp_path, split)
    (tmp_path / annotations).parent.mkdir(parents=True)
    (tmp_path / annotations).touch()
    (tmp_path / images).mkdir(parents=True)
    assert find_split(dataset, tmp_path, split) == (tmp_path / annotations, tmp_path / images)
    inside = tmp_path / annotations.split("/")[0]
    assert find_split(dataset, inside, split) == (tmp_path / annotations, tmp_path / images)


def test_layout_names():
    with pytest.raises(ValueError, match="dataset: expected one of ytvis2019, ytvis2021, ovis, coco, got 'davis'"):
        find_split("davis", ".")
    with pytest.raises(ValueError, match="split of coco: expected one of train, val, got 'valid'"):
        find_split("coco", ".", "valid")

"""Reading dataset splits, and checking them before a run."""

import json

import pytest

from helpers.splits import CATEGORIES, write_split
from vita_hf.evaluation.splits import check_split, match_categories, read_split


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    write_split(folder)
    return folder


def test_split_errors_are_named(workspace, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such annotation file: .*nowhere\.json"):
        read_split(tmp_path / "nowhere.json", workspace)
    with pytest.raises(FileNotFoundError, match=r"24 frames that .*videos\.json names are not below .*v00/00000\.png"):
        read_split(workspace / "videos.json", tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(
        ValueError,
        match=r"list\.json: expected an object with the list 'videos', .* or an object with the list 'images'",
    ):
        read_split(tmp_path / "list.json", workspace)
    (tmp_path / "half.json").write_text('{"videos": [')
    with pytest.raises(ValueError, match=r"half\.json: the file is not json"):
        read_split(tmp_path / "half.json", workspace)
    content = json.loads((workspace / "videos.json").read_text())
    del content["videos"][3]["height"]
    (tmp_path / "no_height.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"no_height\.json, videos\[3\] \(video 103\): expected .*\[height, width\], got \[None, 64\]"
    ):
        read_split(tmp_path / "no_height.json", workspace / "frames")


def test_frames_outside_the_folder_and_repeated_ids_are_refused(workspace, tmp_path):
    content = json.loads((workspace / "unannotated.json").read_text())
    (video,) = content["videos"]
    for name in ("../videos.json", str(workspace / "videos.json")):
        changed = {**content, "videos": [{**video, "file_names": [video["file_names"][0], name]}]}
        (tmp_path / "out.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"out\.json, videos\[0\] \(video 100\), frame 1 \(.*relative to"):
            read_split(tmp_path / "out.json", workspace / "frames")
    (tmp_path / "frames").symlink_to(workspace / "frames")
    assert len(read_split(workspace / "videos.json", tmp_path / "frames").clips) == 12
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/v00").symlink_to(workspace / "frames/v00")
    with pytest.raises(ValueError, match=r"a symbolic link that leads out of .*linked; --follow-links accepts it"):
        read_split(workspace / "unannotated.json", tmp_path / "linked")
    assert len(read_split(workspace / "unannotated.json", tmp_path / "linked", follow_links=True).clips) == 1
    (tmp_path / "twice.json").write_text(json.dumps({**content, "videos": [video, video]}))
    with pytest.raises(ValueError, match=r"twice\.json, videos\[1\] \(video 100\): an earlier entry has the same"):
        read_split(tmp_path / "twice.json", workspace / "frames")


def test_check_split_finds_what_scoring_would_fail_on(workspace, tmp_path):
    names = {i: category["name"] for i, category in enumerate(CATEGORIES)}
    for name in ("videos.json", "images.json", "unannotated.json"):
        check_split(read_split(workspace / name, workspace / "frames"), names)
    with pytest.raises(ValueError, match=r"only the model has \['cat'\], only the file \['thing 6'\]"):
        check_split(read_split(workspace / "unannotated.json", workspace / "frames"), {**names, 6: "cat"})
    content = json.loads((workspace / "videos.json").read_text())
    content["annotations"][2]["segmentations"].pop()
    (tmp_path / "short.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"short\.json, annotations\[2\] \(video 102, annotation 3\): `segmentations` has 1"
    ):
        check_split(read_split(tmp_path / "short.json", workspace / "frames"), names)
    content = json.loads((workspace / "images.json").read_text())
    del content["annotations"][2]["image_id"]
    (tmp_path / "nowhere.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"nowhere\.json, annotations\[2\] \(annotation 3\): the file has no image with this id"
    ):
        check_split(read_split(tmp_path / "nowhere.json", workspace / "frames"), names)
    content["annotations"][2] |= {"image_id": 1002, "segmentation": [[1, 2]]}
    (tmp_path / "point.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError,
        match=r"point\.json, annotations\[2\] .*, frame 0: polygon 0: expected",
    ):
        check_split(read_split(tmp_path / "point.json", workspace / "frames"), names)
    content["categories"][1] = {"id": 4}
    (tmp_path / "unnamed.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"unnamed\.json, categories\[1\]: `name`: expected a string, got None"):
        read_split(tmp_path / "unnamed.json", workspace / "frames")


def test_classes_are_matched_with_categories_by_name():
    categories = {5: "giant_panda", 9: "Fox"}
    assert match_categories({0: "fox", 1: "giant panda"}, categories) == {0: 9, 1: 5}
    assert match_categories({0: "LABEL_0", 1: "LABEL_1"}, categories) == {0: 5, 1: 9}
    with pytest.raises(ValueError, match=r"only the model has \['cat'\], only the file \['giant panda'\]"):
        match_categories({0: "fox", 1: "cat"}, categories)
    with pytest.raises(ValueError, match="the model has 1 classes, the annotation file 2 categories"):
        match_categories({0: "LABEL_0"}, categories)


def test_names_that_differ_only_in_spelling():
    categories = {1: "left_hand", 2: "Left hand"}
    assert match_categories({0: "Left hand", 1: "left_hand"}, categories) == {0: 2, 1: 1}
    assert match_categories({0: "left_hand", 1: "left-hand"}, categories) == {0: 1, 1: 2}  # only one is left
    with pytest.raises(ValueError, match="the model's classes 'left-hand' and 'LEFT HAND' cannot be told apart"):
        match_categories({0: "left-hand", 1: "LEFT HAND"}, categories)
    with pytest.raises(ValueError, match="the annotation file's categories 'left_hand' and 'Left hand' cannot be told"):
        match_categories({0: "LEFT HAND", 1: "foot"}, categories)
    with pytest.raises(ValueError, match="the model's classes 'cat' and 'cat' cannot be told apart"):
        match_categories({0: "cat", 1: "cat"}, {1: "cat", 2: "dog"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_in_any_script_and_encoding(workspace, tmp_path, encoding):
    content = json.loads((workspace / "videos.json").read_text())
    content["categories"][0]["name"] = "猫"
    (tmp_path / "cats.json").write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    split = read_split(tmp_path / "cats.json", workspace / "frames")
    assert next(iter(split.categories.values())) == "猫"
    check_split(split, dict(enumerate(split.categories.values())))


def test_names_too_long_for_a_file(workspace, tmp_path):
    content = json.loads((workspace / "videos.json").read_text())
    content["videos"][0]["file_names"][0] = "x" * 5000
    (tmp_path / "long.json").write_text(json.dumps(content))
    with pytest.raises((FileNotFoundError, ValueError), match=r"long\.json"):
        read_split(tmp_path / "long.json", workspace / "frames")

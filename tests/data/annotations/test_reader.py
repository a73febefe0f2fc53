"""The tables that the reader makes of every form of annotation file."""

import gzip
import json
import pickle
import time

import pytest

from helpers.annotation_files import SQUARE, compressed, make_ytvis, random_mask, track
from vita_hf.data.annotations import AnnotationError, InvalidInputError, Problem, load_json, read_annotations

MASK = compressed(random_mask(0))


def test_youtube_vis(tmp_path):
    file = read_annotations(make_ytvis(tmp_path))
    assert (file.path, file.form, file.has_annotations, file.problems) == (None, "ytvis", True, [])
    assert file.categories == {2: "ball", 5: "wheel"} and list(file.categories) == [2, 5]
    assert list(file.videos) == [1, 2, 3]
    video = file.videos[2]
    assert (video.entry, video.height, video.width, video.length) == ("videos[1]", 24, 32, 4)
    assert video.file_names == [f"v2/{t:05d}.jpg" for t in range(4)]
    first, second = video.annotations
    assert (first.entry, first.id, first.category_id, first.is_crowd) == ("annotations[2]", 21, 2, False)
    assert first.segmentations[0] is None and len(first.boxes) == 4 and first.areas is None
    assert second.segmentations == [[SQUARE]] * 4


def test_coco():
    content = {
        "images": [{"id": 7, "height": 24, "width": 32, "file_name": "a.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 2, 2], "area": 9, "segmentation": MASK},
            {"id": 2, "image_id": 7, "category_id": 3, "area": None, "iscrowd": 1, "segmentation": [SQUARE]},
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }
    file = read_annotations(content)
    assert file.form == "coco" and file.problems == []
    video = file.videos[7]
    assert (video.entry, video.length, video.file_names) == ("images[0]", 1, ["a.jpg"])
    first, second = video.annotations
    assert (first.segmentations, first.boxes, first.areas, first.is_crowd) == ([MASK], [[1, 1, 2, 2]], [9], False)
    assert (second.segmentations, second.boxes, second.areas, second.is_crowd) == ([[SQUARE]], None, None, True)


def test_a_list_of_annotations_tells_sizes_and_categories():
    file = read_annotations([track(1, "a", 4, [None, MASK]), track(2, "b", 3, [None, None])])
    assert file.form == "tracks" and file.categories == {3: "3", 4: "4"}
    assert [(video.id, video.height, video.width, video.length) for video in file.videos.values()] == [("a", 24, 32, 2)]
    assert [problem.kind for problem in file.problems if problem.kind == "unknown-video"] == ["unknown-video"]
    assert read_annotations([]).videos == {}


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        ([], "ytvis", "expected an object with the list 'videos', as in YouTube-VIS and OVIS; got list"),
        ({"images": []}, ("ytvis", "tracks"), "or a list of annotations; got an object with images"),
        ({"annotations": []}, None, "'videos', .*, or .* 'images', .*, or a list of annotations; got an object with"),
    ],
)
def test_other_forms_are_refused(content, form, message):
    with pytest.raises(AnnotationError, match=message):
        read_annotations(content, form)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    content = make_ytvis(tmp_path)
    content["categories"][0]["name"] = "猫"
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    file = read_annotations(path)
    assert file.path == str(path) and file.categories[5] == "猫"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty, expected json"),
        (b"{", "the file is not json: "),
        (b"[" * 100_000, "the file is not json: "),
        (b'{"name": "\xe9"}', "the file is not json: "),
    ],
)
def test_files_that_are_not_json(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=f"bad.json: {message}"):
        read_annotations(path)
    with pytest.raises(InvalidInputError) as caught:
        load_json(path, InvalidInputError)
    assert type(caught.value) is InvalidInputError


def test_ids_that_training_cannot_store(tmp_path):
    """Scoring takes them, so they have kinds of their own."""
    content = make_ytvis(tmp_path)
    content["videos"][0]["id"] = content["annotations"][0]["video_id"] = content["annotations"][1]["video_id"] = "one"
    content["categories"][0]["id"] = 2**63
    content["annotations"][2]["id"] = 2**63
    del content["annotations"][3]["id"]
    content["annotations"][4]["id"] = 0
    kinds = [(problem.entry, problem.kind) for problem in read_annotations(content).problems]
    assert kinds == [
        ("categories[0]", "id"),
        ("videos[0]", "id"),
        ("annotations[2]", "annotation-id"),
        ("annotations[3]", "annotation-id"),
        ("annotations[4]", "annotation-id-zero"),
    ]


def test_annotations_of_a_broken_video_are_not_reported(tmp_path):
    content = make_ytvis(tmp_path)
    content["videos"][1]["height"] = None
    file = read_annotations(content)
    assert [problem.entry for problem in file.problems] == ["videos[1]"] and list(file.videos) == [1, 3]


def test_errors_list_twenty_problems_and_can_be_pickled():
    problems = [Problem("length", "too short", "a.json", f"annotations[{i}]", 7, i, 2, "b.jpg") for i in range(25)]
    error = pickle.loads(pickle.dumps(AnnotationError(problems)))
    assert error.problems == problems
    lines = str(error).splitlines()
    assert lines[3] == "a.json, annotations[3] (video 7, annotation 3), frame 2 (b.jpg): too short"
    assert len(lines) == 21 and lines[-1] == "… and 5 more"


@pytest.mark.parametrize("owner", [[], {}, [1], 0.5, True])
def test_video_ids_of_other_types(tmp_path, owner):
    content = make_ytvis(tmp_path)
    content["annotations"][1]["video_id"] = owner
    message = f"annotations[1] (annotation 12): `video_id`: expected an integer, got {owner!r}"
    assert [str(problem) for problem in read_annotations(content).problems] == [message]


def test_messages_of_many_problems_take_little_memory(tmp_path):
    """Every message lists the known categories; their names and ids may be as long as the file."""
    content = make_ytvis(tmp_path, videos=1)
    content["categories"] = [{"id": "x" * 200_000, "name": "x"}]
    content["annotations"] = [track(key, 1, 1, [None] * 4) for key in range(1, 2001)]
    file = read_annotations(content)
    messages = [problem.message for problem in file.unknown_categories(file.categories)]
    assert len(messages) == 2000 and max(map(len, messages)) < 200
    assert messages[0].startswith("`category_id` 1: expected one of 'xxx")


def test_time_for_many_categories_is_linear(tmp_path):
    content = make_ytvis(tmp_path, videos=1)
    content["categories"] = [{"id": key, "name": f"category {key}"} for key in range(1, 40_001)]
    content["annotations"] *= 2000
    start = time.process_time()
    file = read_annotations(content)
    assert len(file.categories) == 40_000 and next(file.unknown_categories([7]))
    assert len(list(file.unknown_categories(dict.fromkeys(range(10, 40_010))))) == 4000
    assert time.process_time() - start < 3  # 30 s if it is quadratic


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"videos": [], "annotations": [1], "annotations": []}', "an object has the key 'annotations' twice"),
        (b'{"videos": [{"id": 1, "id": 2}]}', "an object has the key 'id' twice"),
        (gzip.compress(b"{}"), "it is compressed with gzip, unpack it first"),
    ],
)
def test_files_of_which_json_would_lose_a_part(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(AnnotationError, match=f"a.json: the file is not json: {message}"):
        read_annotations(tmp_path / "a.json")


def test_names_that_cannot_be_written(tmp_path):
    content = make_ytvis(tmp_path, videos=1)
    content["categories"][0]["name"] = json.loads('"\\ud83d"')  # half of an emoji
    [problem] = read_annotations(content).problems
    assert str(problem) == "categories[0]: `name`: expected Unicode text, got '\\ud83d'"

"""Mask AP of images: equal to pycocotools on sound files, and safe from what pycocotools misreads."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers.annotation_files import compressed, uncompressed
from vita_hf.scoring import InvalidInputError
from vita_hf.scoring.coco import NUMBERS, score_images

HEIGHT, WIDTH = 24, 32
BOX = [[4, 3, 13, 3, 13, 11, 4, 11]]


def make_images(count=4):
    """One object in each image, a box of category 1 or 2, and a perfect result for each."""
    images = [{"id": i + 1, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.png"} for i in range(count)]
    common = {"iscrowd": 0, "area": 72, "bbox": [4, 3, 9, 8], "segmentation": BOX}
    annotations = [{"id": i + 1, "image_id": i + 1, "category_id": 1 + i % 2, **common} for i in range(count)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def results_of(content):
    (rle,) = mask_api.frPyObjects(BOX, HEIGHT, WIDTH)
    mask = {"size": rle["size"], "counts": rle["counts"].decode()}
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 0.9, "segmentation": mask}
        for a in content["annotations"]
    ]


def test_equal_to_pycocotools(tmp_path):
    rng = np.random.default_rng(0)
    content, results = make_images(12), []
    content["images"] = [{**image, "id": int(key)} for image, key in zip(content["images"], rng.permutation(100))]
    content["annotations"] = []
    for image in content["images"]:
        for _ in range(rng.integers(0, 4)):
            mask = np.zeros((HEIGHT, WIDTH), bool)
            top, left = rng.integers(0, HEIGHT - 4), rng.integers(0, WIDTH - 4)
            mask[top : top + rng.integers(2, 16), left : left + rng.integers(2, 20)] = True
            entry = {"image_id": image["id"], "category_id": int(rng.integers(1, 3))}
            rle = compressed(mask) if rng.random() < 0.5 else uncompressed(mask)
            box = mask_api.toBbox(compressed(mask)).tolist()
            more = {"iscrowd": int(rng.random() < 0.2), "area": int(mask.sum()), "bbox": box, "segmentation": rle}
            content["annotations"].append({**entry, **more, "id": len(content["annotations"]) + 1})
            for _ in range(rng.integers(0, 4)):
                noisy = mask ^ (rng.random(mask.shape) < rng.choice([0.01, 0.05]))
                score = float(rng.choice([0.5, rng.random()]))
                results.append({**entry, "score": score, "segmentation": compressed(noisy)})
    truth, found = tmp_path / "truth.json", tmp_path / "results.json"
    truth.write_text(json.dumps(content))
    found.write_text(json.dumps(results))
    reference = COCO(truth)
    scorer = COCOeval(reference, reference.loadRes(str(found)), "segm")
    scorer.evaluate(), scorer.accumulate(), scorer.summarize()
    scores = score_images(truth, found)
    assert [scores[name] for name in NUMBERS] == scorer.stats.tolist()
    assert 0.2 < scores["AP"] < 0.9
    assert sum(scores["per_category"].values()) / 2 == pytest.approx(scores["AP"])


def test_no_results():
    assert score_images(make_images(), [])["AP"] == 0


def shift_image_ids(content):
    for i, (image, annotation) in enumerate(zip(content["images"], content["annotations"])):
        image["id"] = annotation["image_id"] = 2**63 + 100001 * i if i % 2 else 2**62 + 7 * i


@pytest.mark.parametrize(
    "change",
    [
        shift_image_ids,
        lambda c: [a.update(area=None, iscrowd=None) for a in c["annotations"]],
        lambda c: [a.pop("area") for a in c["annotations"]],
        lambda c: [a.pop("id") for a in c["annotations"]],
        lambda c: (
            [a.update(category_id=2 - a["category_id"]) for a in c["annotations"]]
            + [c["categories"][0].update(id=0)]
            + [c["categories"][1].update(id=1)]
        ),
    ],
)
def test_what_pycocotools_misreads_is_scored(change):
    content = make_images()
    change(content)
    scores = score_images(content, results_of(content))
    assert scores["AP"] == pytest.approx(1) and scores["per_category"] == pytest.approx({"cat": 1, "dog": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(id=0), r"annotations\[0\] \(video 1, annotation 0\): id 0 is read as"),
        (lambda c: c["annotations"][1].update(id=1), r"annotations\[1\] .*: an earlier annotation has the same id"),
        (lambda c: c["annotations"][1].update(segmentation=[]), r"annotations\[1\] .*`segmentation`: expected an RLE"),
        (
            lambda c: c["annotations"][1].update(segmentation={"size": [HEIGHT, WIDTH], "counts": "00Z"}),
            r"annotations\[1\] \(video 2, annotation 2\), frame 0: corrupt RLE: its counts end in the middle",
        ),
        (
            lambda c: c["annotations"][1].update(segmentation=[[0, 0, 4e8, 0, 4e8, 4e8]]),
            r"annotations\[1\] .* polygon 0: coordinates and outline must not exceed",
        ),
        (lambda c: c.pop("images"), "expected an object with the list 'images', as in COCO; got an object with"),
    ],
)
def test_annotations_that_cannot_be_scored_are_refused(change, message):
    content = make_images()
    change(content)
    with pytest.raises(InvalidInputError, match=message):
        score_images(content, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, r"predictions\[1\] \(video 9\): `image_id` 9 is not in the annotation file"),
        ({"category_id": 9}, r"predictions\[1\] \(video 2\): `category_id` 9 is not in the annotation file"),
        ({"score": "x"}, "`score` is 'x', expected a finite number"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": 5}}, "RLE counts must be"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "00Z"}}, "corrupt RLE: its counts end in the middle"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": "0"}}, r"the RLE has size \[32, 24\]"),
    ],
)
def test_results_that_cannot_be_scored_are_refused(change, message):
    content = make_images()
    results = results_of(content)
    results[1] |= change
    with pytest.raises(InvalidInputError, match=message):
        score_images(content, results)


def test_results_name_the_missing_field():
    content = make_images()
    results = results_of(content)
    del results[2]["segmentation"]
    with pytest.raises(InvalidInputError, match=r"predictions\[2\] \(video 3\): it has no 'segmentation'"):
        score_images(content, results)

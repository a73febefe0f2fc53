"""scripts/evaluate.py from frames on disk to scores, alone, with two processes, and after being killed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers.golden import load_golden
from vita_hf import VitaVideoProcessor
from vita_hf.evaluation.splits import ResultStore, category_ids, check_split, read_split, score_images
from vita_hf.files import write_atomically
from vita_hf.scoring import VisEvaluator

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"
HEIGHT, WIDTH = 48, 64
CATEGORIES = [{"id": 3 * i + 1, "name": f"thing {i}"} for i in range(7)]


def rectangle(rng) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    top, left = rng.integers(0, HEIGHT // 2), rng.integers(0, WIDTH // 2)
    mask[top : top + 20, left : left + 30] = 1
    return mask


def rle(mask: np.ndarray) -> dict:
    encoded = mask_api.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A converted tiny model, twelve videos of two frames, and the same frames as images."""
    folder = tmp_path_factory.mktemp("evaluation")
    model = load_golden("r50").model()
    model.config.id2label = {i: category["name"] for i, category in enumerate(CATEGORIES)}
    model.config.label2id = {name: i for i, name in model.config.id2label.items()}
    model.save_pretrained(folder / "model")
    VitaVideoProcessor(size={"shortest_edge": 48, "longest_edge": 64}).save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    videos, images, of_videos, of_images = [], [], [], []
    for video in range(12):
        names = [f"v{video:02d}/{frame:05d}.png" for frame in range(2)]
        (folder / "frames" / f"v{video:02d}").mkdir(parents=True)
        videos.append({"id": 100 + video, "height": HEIGHT, "width": WIDTH, "length": 2, "file_names": names})
        masks = [rectangle(rng) for _ in names]
        category = CATEGORIES[video % 7]["id"]
        for name, mask in zip(names, masks):
            pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "frames" / name)
            image = {"id": 1000 + len(images), "height": HEIGHT, "width": WIDTH, "file_name": name}
            images.append(image)
            area = int(mask.sum())
            box = [float(x) for x in mask_api.toBbox(mask_api.encode(mask))]
            common = {"category_id": category, "iscrowd": 0, "area": area, "bbox": box}
            of_images.append({"id": len(images), "image_id": image["id"], "segmentation": rle(mask), **common})
        of_videos.append(
            {
                "id": video + 1,
                "video_id": 100 + video,
                "category_id": category,
                "iscrowd": 0,
                "segmentations": [rle(mask) for mask in masks],
                "bboxes": [[0, 0, 1, 1]] * 2,
                "areas": [int(mask.sum()) for mask in masks],
            }
        )
    for name, content in {
        "videos.json": {"videos": videos, "annotations": of_videos},
        "images.json": {"images": images, "annotations": of_images},
        "unannotated.json": {"videos": videos[:1]},
    }.items():
        (folder / name).write_text(json.dumps({"categories": CATEGORIES, **content}))
    return folder


def arguments_for(annotations: str, output: str) -> list[str]:
    return ["--cpu", "--model", "model", "--images", "frames", "--annotations", annotations, "--output", output]


# One thread, as torchrun sets it, so that sums are taken in one order however many processes there are.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def evaluate(workspace, capsys, caplog, *arguments: str) -> str:
    """The script in this process; what it printed and logged."""
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    threads, folder = torch.get_num_threads(), Path.cwd()
    torch.set_num_threads(1)
    os.chdir(workspace)
    try:
        with caplog.at_level("INFO"):
            script.main(list(arguments))
    finally:
        os.chdir(folder)
        torch.set_num_threads(threads)
    return capsys.readouterr().out + caplog.text


def run(workspace, arguments: list[str], code: int = 0) -> str:
    """The script in a process, or two, of its own."""
    done = subprocess.run(arguments, cwd=workspace, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def whole(workspace, capsys, caplog):
    """An uninterrupted run of one process: its output directory, and what it printed."""
    if not (workspace / "whole.txt").exists():
        printed = evaluate(workspace, capsys, caplog, *arguments_for("videos.json", "whole"), "--worst", "3")
        (workspace / "whole.txt").write_text(printed)
    return workspace / "whole", (workspace / "whole.txt").read_text()


def test_one_process(workspace, whole):
    folder, printed = whole
    assert "12 videos, 7 categories, top 10, 1 processes on cpu" in printed
    results = json.loads((folder / "results.json").read_text())
    assert len(results) == 120 and {entry["video_id"] for entry in results} == set(range(100, 112))
    assert all(len(entry["segmentations"]) == 2 for entry in results)
    assert {entry["category_id"] for entry in results} <= {category["id"] for category in CATEGORIES}
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        assert archive.namelist() == ["results.json"]
        assert archive.read("results.json") == (folder / "results.json").read_bytes()
    evaluator = VisEvaluator(workspace / "videos.json")
    evaluator.add(results)
    assert json.loads((folder / "scores.json").read_text())["AP"] == evaluator.compute()["AP"]
    assert "The 3 videos with the lowest scores:" in printed
    assert "thing 6" in printed


def test_two_processes_give_the_same_digits(workspace, whole):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    printed = run(workspace, [*launcher, str(SCRIPT), *arguments_for("videos.json", "two")])
    assert "2 processes on cpu" in printed
    for name in ("results.json", "submission.zip", "scores.json"):
        assert (workspace / "two" / name).read_bytes() == (whole[0] / name).read_bytes()


def test_killed_and_started_again(workspace, whole):
    command = [sys.executable, str(SCRIPT), *arguments_for("videos.json", "killed")]
    process = subprocess.Popen(
        command, cwd=workspace, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    parts = workspace / "killed" / "parts"
    deadline = time.monotonic() + 300
    while len(list(parts.glob("*.json"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert 3 <= len(finished) < 12
    run(workspace, command)
    assert (workspace / "killed" / "results.json").read_bytes() == (whole[0] / "results.json").read_bytes()
    assert all((parts / name).stat().st_mtime_ns == when for name, when in finished.items())  # not done again


def test_results_of_other_settings_are_not_mixed_in(workspace, whole, capsys, caplog):
    with pytest.raises(ValueError, match=r"holds results of another run \(top_k differ\)"):
        evaluate(workspace, capsys, caplog, *arguments_for("videos.json", "whole"), "--top-k", "5")


def test_existing_results_are_scored(workspace, whole, capsys, caplog):
    printed = evaluate(workspace, capsys, caplog, "--annotations", "videos.json", "--results", "whole/results.json")
    scores = json.loads((whole[0] / "scores.json").read_text())
    assert f"| {scores['AP']:.4f} | {scores['AP50']:.4f} |" in printed


def test_without_annotations_it_says_so(workspace, capsys, caplog):
    printed = evaluate(workspace, capsys, caplog, *arguments_for("unannotated.json", "unannotated"))
    assert "unannotated.json has no annotations, so there is nothing to score against" in printed
    assert (workspace / "unannotated" / "submission.zip").is_file()
    assert not (workspace / "unannotated" / "scores.json").exists()


def test_coco_images_equal_pycocotools_by_hand(workspace, capsys, caplog):
    evaluate(workspace, capsys, caplog, *arguments_for("images.json", "images"))
    results = json.loads((workspace / "images" / "results.json").read_text())
    assert len(results) == 24 * 70  # every pair of ten queries and seven classes: fewer than 100
    # An untrained model finds none of the rectangles: make some of its own masks the truth as well.
    content = json.loads((workspace / "images.json").read_text())
    for index, result in enumerate(results[::61]):
        mask = result["segmentation"]
        box = mask_api.toBbox(mask).tolist()
        annotation = {"id": 500 + index, "iscrowd": 0, "area": int(mask_api.area(mask)), "bbox": box}
        keys = ("image_id", "category_id", "segmentation")
        content["annotations"].append({**annotation, **{key: result[key] for key in keys}})
    (workspace / "found.json").write_text(json.dumps(content))
    arguments = ("--annotations", "found.json", "--results", "images/results.json")
    printed = evaluate(workspace, capsys, caplog, *arguments)

    truth = COCO(str(workspace / "found.json"))
    by_hand = COCOeval(truth, truth.loadRes(str(workspace / "images" / "results.json")), "segm")
    by_hand.evaluate(), by_hand.accumulate(), by_hand.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    scores = score_images(workspace / "found.json", workspace / "images" / "results.json")
    assert [scores[name] for name in names] == by_hand.stats.tolist()
    assert 0 < by_hand.stats[0] < 1
    assert " | ".join(f"{value:.4f}" for value in by_hand.stats) in printed
    assert sum(scores["per_category"].values()) / 7 == pytest.approx(by_hand.stats[0])
    for annotation in content["annotations"]:  # own data may have neither
        del annotation["area"], annotation["iscrowd"]
    (workspace / "bare.json").write_text(json.dumps(content))
    assert score_images(workspace / "bare.json", workspace / "images" / "results.json") == scores


# -- Messages ----------------------------------------------------------------------------------------------------------


def test_split_errors_are_named(workspace, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such annotation file: .*nowhere\.json"):
        read_split(tmp_path / "nowhere.json", workspace)
    with pytest.raises(FileNotFoundError, match="no such folder of frames"):
        read_split(workspace / "videos.json", workspace / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"24 frames that .*videos\.json names are not below .*v00/00000\.png"):
        read_split(workspace / "videos.json", tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="expected an object with 'categories' and 'videos'"):
        read_split(tmp_path / "list.json", workspace)
    (tmp_path / "half.json").write_text('{"videos": [')
    with pytest.raises(ValueError, match="is not json"):
        read_split(tmp_path / "half.json", workspace)
    content = json.loads((workspace / "videos.json").read_text())
    del content["videos"][3]["height"]
    (tmp_path / "no_height.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"no_height\.json, videos\[3\]: expected id, height, .*KeyError\('height'\)"):
        read_split(tmp_path / "no_height.json", workspace / "frames")


def test_what_scoring_would_fail_at_is_said_before(workspace, tmp_path):
    names = {i: category["name"] for i, category in enumerate(CATEGORIES)}
    for name in ("videos.json", "images.json", "unannotated.json"):
        check_split(read_split(workspace / name, workspace / "frames"), names)
    with pytest.raises(ValueError, match=r"only the model has \['cat'\], only the file \['thing 6'\]"):
        check_split(read_split(workspace / "unannotated.json", workspace / "frames"), {**names, 6: "cat"})
    content = json.loads((workspace / "videos.json").read_text())
    content["annotations"][2]["segmentations"].pop()
    (tmp_path / "short.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"short\.json: 1 problem\n- annotation 2 \(id 3, .*segmentations` has 1"):
        check_split(read_split(tmp_path / "short.json", workspace / "frames"), names)
    content = json.loads((workspace / "images.json").read_text())
    del content["annotations"][2]["image_id"]
    (tmp_path / "nowhere.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"nowhere\.json: expected COCO's form; .*KeyError\('image_id'\)"):
        check_split(read_split(tmp_path / "nowhere.json", workspace / "frames"), names)
    content["annotations"][2] |= {"image_id": 1002, "segmentation": [[1, 2]]}
    (tmp_path / "point.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"point\.json, annotation 3: no segmentation in COCO's form"):
        check_split(read_split(tmp_path / "point.json", workspace / "frames"), names)
    content["categories"][1] = {"id": 4}
    (tmp_path / "unnamed.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"unnamed\.json, categories\[1\]: expected id and name, got \{'id': 4\}"):
        read_split(tmp_path / "unnamed.json", workspace / "frames")


def test_classes_meet_categories_by_name():
    categories = [{"id": 5, "name": "giant_panda"}, {"id": 9, "name": "Fox"}]
    assert category_ids({0: "fox", 1: "giant panda"}, categories) == {0: 9, 1: 5}
    assert category_ids({0: "LABEL_0", 1: "LABEL_1"}, categories) == {0: 5, 1: 9}
    with pytest.raises(ValueError, match=r"only the model has \['cat'\], only the file \['giant panda'\]"):
        category_ids({0: "fox", 1: "cat"}, categories)
    with pytest.raises(ValueError, match="the model has 1 classes, the annotation file 2 categories"):
        category_ids({0: "LABEL_0"}, categories)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", b"before")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_results_of_another_run_are_not_mixed(tmp_path):
    ResultStore(tmp_path, {"model": "a", "top_k": 10})
    ResultStore(tmp_path, {"model": "a", "top_k": 10})
    with pytest.raises(ValueError, match=r"holds results of another run \(model differ\)"):
        ResultStore(tmp_path, {"model": "b", "top_k": 10})

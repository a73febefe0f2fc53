"""`vita-hf evaluate` from frames on disk to scores: one process, two processes, and a killed one."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers.golden import load_golden
from helpers.splits import CATEGORIES, write_split
from vita_hf import VitaVideoProcessor
from vita_hf.commands.main import main
from vita_hf.scoring import VisEvaluator
from vita_hf.scoring.coco import score_images

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A converted tiny model, twelve videos of two frames, and the same frames as images."""
    folder = tmp_path_factory.mktemp("evaluation")
    model = load_golden("r50").model()
    model.config.id2label = {i: category["name"] for i, category in enumerate(CATEGORIES)}
    model.config.label2id = {name: i for i, name in model.config.id2label.items()}
    model.config.evaluation_top_k = 9
    model.save_pretrained(folder / "model")
    VitaVideoProcessor(size={"shortest_edge": 48, "longest_edge": 64}).save_pretrained(folder / "model")
    write_split(folder)
    return folder


def arguments_for(annotations: str, output: str) -> list[str]:
    return ["--cpu", "--model", "model", "--images", "frames", "--annotations", annotations, "--output", output]


# One thread, as torchrun sets it, so that sums are taken in one order however many processes there are.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def evaluate(workspace, capsys, *arguments: str) -> str:
    """Run the command in this process, and return what it printed."""
    threads, folder = torch.get_num_threads(), Path.cwd()
    torch.set_num_threads(1)
    os.chdir(workspace)
    try:
        main(["evaluate", *arguments])
    finally:
        os.chdir(folder)
        torch.set_num_threads(threads)
    return capsys.readouterr().out


def run(workspace, arguments: list[str]) -> str:
    """Run a command in processes of its own, and return what they printed."""
    done = subprocess.run(arguments, cwd=workspace, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def whole(workspace, capsys):
    """An uninterrupted run of one process: its output directory, and what it printed."""
    if not (workspace / "whole.txt").exists():
        printed = evaluate(workspace, capsys, *arguments_for("videos.json", "whole"), "--worst", "3")
        (workspace / "whole.txt").write_text(printed)
    return workspace / "whole", (workspace / "whole.txt").read_text()


def test_one_process(workspace, whole):
    folder, printed = whole
    assert "12 videos, 7 categories, top 9, 1 process on cpu" in printed
    results = json.loads((folder / "results.json").read_text())
    assert len(results) == 12 * 9 and {entry["video_id"] for entry in results} == set(range(100, 112))
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
    command = [*launcher, "-m", "vita_hf", "evaluate", *arguments_for("videos.json", "two")]
    printed = run(workspace, command)
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


def test_results_of_other_settings_are_not_mixed_in(workspace, whole, capsys):
    with pytest.raises(SystemExit, match="1"):
        evaluate(workspace, capsys, *arguments_for("videos.json", "whole"), "--top-k", "5")
    assert "holds results of another run (top_k differ)" in capsys.readouterr().err


def test_ids_are_no_paths(workspace, tmp_path, capsys):
    content = json.loads((workspace / "unannotated.json").read_text())
    (video,) = content["videos"]
    ids = ["../../planted", str(tmp_path / "absolute"), "a/b", "..", 7, "7"]
    content["videos"] = [{**video, "id": key} for key in ids]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with suppress(SystemExit):  # ids that are strings may be refused
        evaluate(workspace, capsys, *arguments_for(str(tmp_path / "annotations.json"), str(tmp_path / "out")))
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    parts = [f"out/parts/{index:06d}.json" for index in range(6)]
    outputs = [f"out/{name}" for name in ("results.json", "run.json", "submission.zip")]
    assert written in (["annotations.json"], sorted(["annotations.json", *parts, *outputs]))


def test_results_of_something_else_are_not_replaced(workspace, tmp_path, capsys):
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(SystemExit, match="1"):
        evaluate(workspace, capsys, *arguments_for("unannotated.json", str(tmp_path)))
    assert "results.json was not written by an earlier run: choose another" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_existing_results_are_scored(workspace, whole, capsys):
    printed = evaluate(workspace, capsys, "--annotations", "videos.json", "--results", "whole/results.json")
    scores = json.loads((whole[0] / "scores.json").read_text())
    assert f"| {scores['AP']:.4f} | {scores['AP50']:.4f} |" in printed


def test_a_dash_where_there_is_nothing_to_score(workspace, tmp_path, capsys):
    content = json.loads((workspace / "videos.json").read_text())
    (tmp_path / "empty.json").write_text(json.dumps(content | {"annotations": []}))
    (tmp_path / "results.json").write_text("[]")
    arguments = ("--annotations", str(tmp_path / "empty.json"), "--results", str(tmp_path / "results.json"))
    printed = evaluate(workspace, capsys, *arguments)
    assert "-1.0000" not in printed
    assert "| AP | AP50 | AP75 |" in printed and "\n| – | – | – |" in printed
    assert printed.endswith("\n–: nothing to score, because the annotations have no such objects\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--results", "nosuch.json"], "nosuch.json: No such file or directory"),
        (["--results", "frames"], "frames: Is a directory"),
        (["--results", "r.json", "--model", "m"], "--results: expected neither --model nor --images nor --output"),
        (["--results", "r.json", "--worst", "-1"], "--worst: expected at least 0, got -1"),
        (["--model", "m", "--top-k", "0"], "--top-k: expected at least 1, got 0"),
    ],
)
def test_arguments_that_cannot_be_used(workspace, capsys, arguments, message):
    with pytest.raises(SystemExit, match="1"):
        evaluate(workspace, capsys, "--annotations", "videos.json", *arguments)
    assert capsys.readouterr().err == f"error: {message}\n"


def test_missing_arguments_are_named(workspace, capsys):
    with pytest.raises(SystemExit, match="1"):
        evaluate(workspace, capsys, "--annotations", "videos.json", "--model", "model")
    assert capsys.readouterr().err == "error: expected --model, --images and --output, or --results\n"


def test_split_without_annotations_gives_a_submission_only(workspace, capsys):
    printed = evaluate(workspace, capsys, *arguments_for("unannotated.json", "unannotated"))
    assert "unannotated.json has no annotations, so there is nothing to score against" in printed
    assert (workspace / "unannotated" / "submission.zip").is_file()
    assert not (workspace / "unannotated" / "scores.json").exists()


def test_coco_images_equal_pycocotools_by_hand(workspace, capsys):
    evaluate(workspace, capsys, *arguments_for("images.json", "images"), "--top-k", "100")
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
    printed = evaluate(workspace, capsys, *arguments)

    truth = COCO(str(workspace / "found.json"))
    by_hand = COCOeval(truth, truth.loadRes(str(workspace / "images" / "results.json")), "segm")
    by_hand.evaluate(), by_hand.accumulate(), by_hand.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    scores = score_images(workspace / "found.json", workspace / "images" / "results.json")
    assert [scores[name] for name in names] == by_hand.stats.tolist()
    assert 0 < by_hand.stats[0] < 1
    assert " | ".join(f"{value:.4f}" for value in by_hand.stats).replace("-1.0000", "–") in printed
    assert sum(scores["per_category"].values()) / 7 == pytest.approx(by_hand.stats[0])
    for annotation in content["annotations"]:  # own data may have neither
        del annotation["area"], annotation["iscrowd"]
    (workspace / "bare.json").write_text(json.dumps(content))
    assert score_images(workspace / "bare.json", workspace / "images" / "results.json") == scores


def test_parts_of_something_else_are_not_used(workspace, tmp_path, capsys):
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "parts" / "000000.json").write_text("[]")
    with pytest.raises(SystemExit, match="1"):
        evaluate(workspace, capsys, *arguments_for("unannotated.json", "unused"), "--output", str(tmp_path / "out"))
    assert "parts/000000.json was not written by an earlier run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, message", [("", "the file is empty"), ("{}", "expected a list of predictions, got {}")]
)
def test_damaged_parts_are_named(workspace, tmp_path, capsys, content, message):
    arguments = [*arguments_for("unannotated.json", "unused"), "--output", str(tmp_path)]
    evaluate(workspace, capsys, *arguments)
    (tmp_path / "parts" / "000000.json").write_text(content)
    with pytest.raises(SystemExit, match="1"):
        evaluate(workspace, capsys, *arguments)
    assert f"000000.json: {message}" in capsys.readouterr().err

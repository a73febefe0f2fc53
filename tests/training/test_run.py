"""Whole trainings: resuming, interruptions, broken data, several processes, and the finished model."""

import json
import os
import random
import signal
import time
from pathlib import Path

import accelerate
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForUniversalSegmentation, AutoVideoProcessor

import vita_hf.evaluation.run
from helpers.training_runs import arguments, make_set, read_log, run_python, run_training, start_training
from vita_hf.data.datasets import read_ytvis
from vita_hf.data.parquet import write_parquet
from vita_hf.scoring import VisEvaluator
from vita_hf.training.checkpoints import Checkpoints
from vita_hf.training.signals import TrainingInterrupted

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory):
    """Use one thread, as the subprocesses do (the order of a sum decides its rounding), and a fresh Accelerate."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.getbasetemp() / "datasets"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    reset_accelerate()


def reset_accelerate():
    """Forget Accelerate's state, as if a new process started."""
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


def wait_for_step(process, output, step):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if (output / "log.jsonl").is_file() and len(read_log(output)) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate(timeout=10)[1].decode())


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    torch.set_num_threads(1)
    run_training(arguments(data, output, "training.steps=7", options=("--micro-batches", "2", "--workers", "2")))
    return output


def test_killed_and_resumed_equals_uninterrupted(data, uninterrupted, tmp_path):
    """Bit for bit: the loss curve and the final weights, with workers and gradient accumulation."""
    args = arguments(data, tmp_path, "training.steps=7", options=("--micro-batches", "2"))
    process = start_training(args)
    wait_for_step(process, tmp_path, random.randint(1, 5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    print("killed at step", len(read_log(tmp_path)))
    assert len(read_log(tmp_path)) < 7
    run_training(args)
    assert read_log(tmp_path) == read_log(uninterrupted)
    last = "checkpoints/step-000000007/model.safetensors"  # in float32
    ours, theirs = (load_file(folder / last) for folder in (tmp_path, uninterrupted))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def test_a_signal_stops_the_training_after_the_step(data, tmp_path):
    process = start_training(arguments(data, tmp_path, "training.steps=500"))
    wait_for_step(process, tmp_path, 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    reached = Checkpoints(tmp_path / "checkpoints", 2).steps()[-1]
    assert process.returncode == 1
    assert f"stopped after step {reached}; run the same command to continue" in errors.decode()
    assert read_log(tmp_path)[-1]["step"] == reached
    assert not (tmp_path / "model.safetensors").exists()


def test_a_signal_stops_an_evaluation_at_once(data, tmp_path, monkeypatch):
    """It comes twice, from a batch system and a launcher. The same command continues with the evaluation."""
    options = ("--eval-json", str(data[0]), "--eval-images", str(data[1]))
    args = arguments(data, tmp_path, "training.steps=1", options=options)
    segment_clip, clips = vita_hf.evaluation.run.segment_clip, []

    def interrupted(*args):
        clips.append(args)
        if len(clips) == 2:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
        return segment_clip(*args)

    monkeypatch.setattr(vita_hf.evaluation.run, "segment_clip", interrupted)
    with pytest.raises(TrainingInterrupted, match="stopped before step 1 was scored; run the same command to continue"):
        run_training(args)
    assert len(clips) == 2 and not (tmp_path / "model.safetensors").exists()
    reset_accelerate()
    run_training(args)
    assert [sorted(entry)[0] for entry in read_log(tmp_path)] == ["grad_norm", "evaluation"]
    assert len(clips) == 2 + 6


def test_the_finished_model(data, uninterrupted):
    model, info = AutoModelForUniversalSegmentation.from_pretrained(uninterrupted, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.dtype == torch.float32
    assert load_file(uninterrupted / "model.safetensors")["class_predictor.weight"].dtype == torch.float16
    assert list(model.config.id2label.values()) == ["disc", "square", "triangle", "star", "flower", "peanut"]
    assert AutoVideoProcessor.from_pretrained(uninterrupted).size["shortest_edge"] == 96
    card = (uninterrupted / "README.md").read_text()
    for fact in (
        "| Recipe | `tiny-synthetic` |",
        "`training.steps=7`",
        "(6 videos, weight 1)",
        "| Optimizer steps | 7 |",
        "| Time | 0:0",
    ):
        assert fact in card
    assert sorted(path.name for path in (uninterrupted / "checkpoints").iterdir()) == [
        "step-000000006",
        "step-000000007",
    ]


def test_another_recipe_does_not_continue(data, uninterrupted):
    with pytest.raises(FileExistsError, match=r"results of another run \(training\.learning_rate differ\)"):
        run_training(arguments(data, uninterrupted, "training.steps=7", "training.learning_rate=1"))


def test_other_data_does_not_continue(tmp_path):
    for seed in (1, 2):
        data = make_set(tmp_path / str(seed), seed=seed, videos=2 + seed)
        args = arguments(data, tmp_path / "out", "training.steps=1")
        if seed == 1:
            run_training(args)
            reset_accelerate()
    with pytest.raises(FileExistsError, match=r"another run \(sources\.1-annotations, sources\.2-annotations differ\)"):
        run_training(args)


def test_tensorboard_gets_the_log(data, tmp_path):
    options = ("--report-to", "tensorboard", "--eval-json", str(data[0]), "--eval-images", str(data[1]))
    run_training(arguments(data, tmp_path, "training.steps=2", options=options))
    events = EventAccumulator(str(tmp_path / "trackers" / "vita-hf")).Reload()
    *steps, scores = read_log(tmp_path)
    for name in ("loss", "loss_vita_ce", "grad_norm"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(entry["step"], pytest.approx(entry[name], rel=1e-6)) for entry in steps]
    (logged,) = events.Scalars("evaluation/AP50")
    assert (logged.step, logged.value) == (2, pytest.approx(scores["evaluation"]["AP50"], rel=1e-6))


def test_fewer_steps_than_a_checkpoint_has(data, uninterrupted):
    before = (uninterrupted / "recipe.yaml").read_bytes()
    with pytest.raises(
        (ValueError, OSError), match=r"training\.steps: expected at least 7, the step of .*step-000000007, or"
    ):
        run_training(arguments(data, uninterrupted, "training.steps=6", options=("--micro-batches", "2")))
    assert (uninterrupted / "recipe.yaml").read_bytes() == before


def test_more_steps_continue_a_finished_training(data, tmp_path):
    run_training(arguments(data, tmp_path, "training.steps=2"))
    reset_accelerate()
    run_training(arguments(data, tmp_path, "training.steps=3"))
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2, 3]


def test_evaluation_equals_the_metric(data, tmp_path):
    options = ("--eval-json", str(data[0]), "--eval-images", str(data[1]))
    run_training(arguments(data, tmp_path, "training.steps=1", options=options))
    (scores,) = [entry["evaluation"] for entry in read_log(tmp_path) if "evaluation" in entry]
    evaluator = VisEvaluator(data[0])
    evaluator.add(tmp_path / "evaluation" / "step-000000001" / "results.json")
    assert scores == json.loads(json.dumps(evaluator.compute()))
    assert "| step | loss | AP | AP50 | AP75 |" in (tmp_path / "README.md").read_text()


def test_streaming_continues_where_it_stopped(data, tmp_path):
    """Stream Parquet shards, with an interruption after two of five steps and without."""
    dataset = read_ytvis(*data, cache_dir=tmp_path / "cache")
    write_parquet(dataset, tmp_path / "parquet", shard_bytes=20_000)
    source = ("--train-parquet", str(tmp_path / "parquet"), "--streaming")
    for output, parts in (("whole", (5,)), ("parts", (2, 5))):
        for steps in parts:
            run_training(arguments(None, tmp_path / output, f"training.steps={steps}", options=source))
            reset_accelerate()
    whole, parts = read_log(tmp_path / "whole"), read_log(tmp_path / "parts")
    assert len(whole) == 5 and parts == whole
    assert len({entry["loss"] for entry in whole}) == 5


def test_a_full_disk_leaves_the_earlier_checkpoint(data, tmp_path, monkeypatch):
    saved = accelerate.Accelerator.save_state

    def fails(self, folder, **options):
        saved(self, folder, **options)
        if folder.endswith("4"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(accelerate.Accelerator, "save_state", fails)
    with pytest.raises((ValueError, OSError), match="No space left on device"):
        run_training(arguments(data, tmp_path, "training.steps=6"))
    assert Checkpoints(tmp_path / "checkpoints", 2).steps() == [2]
    monkeypatch.undo()
    reset_accelerate()
    run_training(arguments(data, tmp_path, "training.steps=6"))
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert Checkpoints(tmp_path / "checkpoints", 2).steps() == [4, 6]


def test_a_broken_frame_stops_or_is_skipped_and_counted(tmp_path):
    annotations, images = make_set(tmp_path / "set", videos=4)
    for frame in sorted((images / "00001").iterdir()):
        frame.write_bytes(frame.read_bytes()[:200])
    with pytest.raises((ValueError, OSError), match=r"video 2, .*00001.*cannot be decoded"):
        run_training(arguments((annotations, images), tmp_path / "stops", "training.steps=3"))
    reset_accelerate()
    run_training(arguments((annotations, images), tmp_path / "skips", "training.steps=3", options=("--skip-broken",)))
    assert read_log(tmp_path / "skips")[-1]["skipped"] == 3  # 12 draws of 4 videos


@pytest.mark.parametrize(
    "changes, options, message",
    [
        (("training.steps=0",), (), r"training\.steps: expected to be greater than 0|training\.steps: .* got 0"),
        (("clips.num_frame=3",), (), r"num_frame"),
        (("training.batch_size=3",), ("--micro-batches", "2"), r"batch_size: expected a multiple of .* = 2"),
        (("training.init=./no/such/model",), (), r"init: ./no/such/model: there is no such directory"),
        (("model.num_queries=0",), (), r"model section: num_queries: expected at least 1, got 0"),
        (("model.num_querys=3",), (), r"model\.num_querys: no such key"),
        (("evaluation.topk=3",), (), r"evaluation\.topk: no such key"),
        (("clips=3",), (), r"expected SECTION\.KEY=VALUE"),
        (("training.init=scratch",), ("--log-every", "0"), r"log_every: expected at least 1, got 0"),
        (("training.init=scratch",), ("--micro-batches", "0"), r"micro_batches: expected at least 1, got 0"),
        (("training.init=scratch",), ("--evaluate-every", "-5"), r"evaluate_every: expected at least 0, got -5"),
        (
            ("training.init=scratch",),
            ("--report-to", "nothing"),
            r"--report-to nothing: Accelerate has no such tracker",
        ),
    ],
)
def test_wrong_values_fail_at_once(data, tmp_path, changes, options, message):
    with pytest.raises((ValueError, OSError), match=message):
        run_training(arguments(data, tmp_path, "training.steps=1", *changes, options=options))
    assert not (tmp_path / "log.jsonl").exists() or not read_log(tmp_path)


def test_wrong_sources_fail_at_once(data, tmp_path):
    (tmp_path / "bare.yaml").write_text("training: {steps: 1, batch_size: 1, learning_rate: 1, init: scratch}\n")
    (tmp_path / "odd.yaml").write_text("base: tiny-synthetic\ndata: {train: [{weight: 1}]}\n")
    other = make_set(tmp_path / "other")
    content = json.loads(other[0].read_text())
    content["categories"][0]["name"] = "ring"
    other[0].write_text(json.dumps(content))
    own = ("--train-json", str(data[0]), "--train-images", str(data[1]))
    for recipe, options, message in (
        (
            "tiny-synthetic",
            ("--data-root", str(tmp_path)),
            r"names no datasets \(data\.train\): expected --train-json",
        ),
        (str(tmp_path / "bare.yaml"), own, "data: missing"),
        (str(tmp_path / "odd.yaml"), own, r"data\.train\[0\]\.dataset: missing"),
        (
            "tiny-synthetic",
            (*own, "--eval-json", str(other[0]), "--eval-images", str(other[1])),
            r"only the model has \['disc'\], only the file \['ring'\]",
        ),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            run_training(["--recipe", recipe, *options, "--output", str(tmp_path / "out"), "--cpu"])
        reset_accelerate()
    assert not (tmp_path / "out" / "recipe.yaml").exists()


def test_a_checkpoint_with_impossible_changes_is_refused(data, uninterrupted, tmp_path):
    changes = (f"training.init={uninterrupted}", "model.num_last_layers=50")
    with pytest.raises((ValueError, OSError), match="the recipe's model section: num_last_layers"):
        run_training(arguments(data, tmp_path, "training.steps=1", *changes))


def test_fsdp_on_the_cpu_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises((ValueError, OSError), match="FSDP, which Accelerate ignores on the CPU"):
        run_training(arguments(data, tmp_path, "training.steps=1"))


def test_sharded_by_accelerate_and_resumed_equals_uninterrupted(data, tmp_path):
    """In two processes, FSDP as Accelerate prepares, saves and loads it gives a complete model."""

    def train(output, steps):
        script = str(Path(__file__).with_name("train_sharded.py"))
        args = arguments(data, output, f"training.steps={steps}", "training.learning_rate_steps=[]")
        finished = run_python(*TORCHRUN, script, *args)
        assert "sharded: " in finished.stdout and "in 2 processes" in finished.stdout

    train(tmp_path / "once", 3)
    train(tmp_path / "twice", 2)
    train(tmp_path / "twice", 3)
    assert (tmp_path / "once" / "checkpoints" / "step-000000003" / "pytorch_model_fsdp.bin").is_file()
    assert read_log(tmp_path / "twice") == read_log(tmp_path / "once")
    once, twice = (load_file(tmp_path / name / "model.safetensors") for name in ("once", "twice"))
    assert once.keys() == AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "once").state_dict().keys()
    for name, tensor in once.items():
        assert torch.equal(tensor, twice[name]), name


def test_a_frozen_detector_stays_as_it_was(data, tmp_path):
    """Weights and batch-norm statistics, also after an evaluation."""
    run_training(arguments(data, tmp_path / "first", "training.steps=1", "training.save_dtype=float32"))
    reset_accelerate()
    init = f"training.init={tmp_path / 'first'}"
    changes = ("training.steps=2", "model.freeze_detector=true", "training.save_dtype=float32", init)
    options = ("--eval-json", str(data[0]), "--eval-images", str(data[1]), "--evaluate-every", "1")
    run_training(arguments(data, tmp_path / "second", *changes, options=options))
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("first", "second"))
    detector = ("model.pixel_level_module.", "model.transformer_module.", "class_predictor.")
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == name.startswith(detector), name


def test_overwrite_removes_nothing_before_the_inputs_are_known_to_be_good(data, tmp_path):
    run_training(arguments(data, tmp_path, "training.steps=2"))
    before = sorted(path for path in tmp_path.rglob("*"))
    for options in (("--train-images", str(tmp_path / "nowhere")), ("--init", str(tmp_path / "nowhere"))):
        reset_accelerate()
        with pytest.raises(OSError, match="nowhere"):
            run_training(arguments(data, tmp_path, "training.steps=2", options=("--overwrite", *options)))
        assert sorted(path for path in tmp_path.rglob("*")) == before


def test_overwrite_and_the_finished_model_replace_only_own_files(data, tmp_path):
    run_training(arguments(data, tmp_path, "training.steps=1"))
    for name in ("notes.txt", "checkpoints/notes.txt", "evaluation/notes.txt", "trackers/other/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("mine")
    reset_accelerate()
    changes = ("training.steps=1", "training.seed=5")
    run_training(arguments(data, tmp_path, *changes, options=("--overwrite",)))
    assert len(list(tmp_path.rglob("notes.txt"))) == 4 and len(read_log(tmp_path)) == 1
    (tmp_path / "run.json").unlink()
    reset_accelerate()
    for options in ((), ("--overwrite",)):
        with pytest.raises(FileExistsError, match=r"checkpoints was not written by an earlier run: choose another"):
            run_training(arguments(data, tmp_path, *changes, options=options))


def test_stopped_while_the_finished_model_is_saved(data, tmp_path, monkeypatch):
    """There is no `config.json` before all of it is there; the same command saves it again."""
    args = arguments(data, tmp_path, "training.steps=1")
    replace = Path.replace

    def stop_after_the_weights(path, target):
        replace(path, target)
        if path.name == "model.safetensors":
            raise KeyboardInterrupt

    for _ in range(2):  # the second time, there is an older model
        monkeypatch.setattr(Path, "replace", stop_after_the_weights)
        with pytest.raises(KeyboardInterrupt):
            run_training(args)
        assert not (tmp_path / "config.json").exists() and (tmp_path / ".unfinished").exists()
        monkeypatch.undo()
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        reset_accelerate()
        run_training(args)
        assert (tmp_path / "config.json").exists() and not (tmp_path / ".unfinished").exists()
        reset_accelerate()
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_training_normalizes_frames_only_if_the_processor_does(data, tmp_path):
    plain = ("processor.image_mean=[0, 0, 0]", "processor.image_std=[1, 1, 1]")
    losses = []
    for index, changes in enumerate((["processor.do_normalize=false"], plain, [])):
        reset_accelerate()
        run_training(arguments(data, tmp_path / str(index), "training.steps=1", *changes))
        losses.append(read_log(tmp_path / str(index))[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) != pytest.approx(losses[2], rel=1e-3)


def test_two_processes(data, tmp_path):
    """Under torchrun, two processes share the clips and write one log and one model."""
    data = make_set(tmp_path / "set", videos=4)
    for frame in (data[1] / "00001").iterdir():
        frame.unlink()
    options = ("--workers", "0", "--skip-broken")
    # Without batch statistics, and with points enough to match alike whatever their places, a step is the same.
    changes = ("model.backbone_config.model_type=convnext", "model.train_num_points=2000")
    args = arguments(data, tmp_path, "training.steps=2", *changes, options=options)
    done = run_python(*TORCHRUN, "-m", "vita_hf", "train", *args)
    assert done.stderr.count("2 processes on cpu in float32") == 1
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2]
    assert done.stderr.count("skipped: video 2, ") == read_log(tmp_path)[-1]["skipped"] == 2  # 8 draws of 4 videos
    checkpoint = Checkpoints(tmp_path / "checkpoints", 1).path(2)
    assert {f"random_states_{rank}.pkl" for rank in (0, 1)} <= {path.name for path in checkpoint.iterdir()}
    run_training(arguments(data, tmp_path / "one", "training.steps=1", *changes, options=("--skip-broken",)))
    one, two = read_log(tmp_path / "one")[0], read_log(tmp_path)[0]
    assert two["loss_vita_ce"] == pytest.approx(one["loss_vita_ce"], rel=1e-5)

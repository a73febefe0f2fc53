"""A tiny training for the tests: its data, its command line, and functions that run it."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from vita_hf.commands import train as command
from vita_hf.commands.arguments.train import add_arguments
from vita_hf.data.synthetic import write_synthetic_dataset
from vita_hf.training.run import train

# Everything is as in the recipe, but smaller.
SMALL = (
    "model.backbone_config.embedding_size=8",
    "model.backbone_config.hidden_sizes=[8, 8, 16, 16]",
    "model.backbone_config.depths=[1, 1, 1, 1]",
    "model.hidden_dim=32",
    "model.feature_size=32",
    "model.mask_feature_size=32",
    "model.num_attention_heads=4",
    "model.video_num_attention_heads=4",
    "model.encoder_feedforward_dim=32",
    "model.dim_feedforward=32",
    "model.video_dim_feedforward=32",
    "model.num_queries=6",
    "model.num_video_queries=6",
    "model.encoder_layers=1",
    "model.decoder_layers=3",
    "model.object_decoder_layers=2",
    "model.train_num_points=32",
    "clips.num_frames=2",
    "clips.short_edges=[32]",
    "training.batch_size=4",
)
_TESTS = str(Path(__file__).parents[1])
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([_TESTS, os.environ.get("PYTHONPATH", "")]),
}


def make_set(folder: Path, seed: int = 0, videos: int = 6) -> tuple[Path, Path]:
    """Write a small synthetic dataset; return its annotation file and image folder."""
    return write_synthetic_dataset(folder, seed=seed, videos=videos, size=(32, 64), length=4), folder / "JPEGImages"


def arguments(data: tuple[Path, Path] | None, output: Path, *changes: str, options: tuple[str, ...] = ()) -> list[str]:
    """Return the arguments of `vita-hf train`."""
    source = () if data is None else ("--train-json", str(data[0]), "--train-images", str(data[1]))
    return [
        *("--recipe", "tiny-synthetic", *source, "--output", str(output), "--cpu"),
        *("--log-every", "1", "--checkpoint-every", "2", "--workers", "1", *options),
        *("--set", *SMALL, *changes),
    ]


def run_training(args: list[str]) -> None:
    """Train in this process. Errors are raised rather than printed."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    train(command.read_options(parser.parse_args(args)))


def start_training(args: list[str]) -> subprocess.Popen:
    """Start `vita-hf train` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vita_hf", "train", *args],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def run_python(*command_line: str) -> subprocess.CompletedProcess:
    """Run Python with a command line to its end, and expect success."""
    finished = subprocess.run(
        [sys.executable, *command_line],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished


def read_log(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]

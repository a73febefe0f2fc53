"""A tiny training for the tests: data, arguments, and the script as a function."""

import importlib.util
from pathlib import Path

from vita_hf.data.synthetic import write_synthetic_dataset

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
# Everything as in the recipe, but smaller.
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


def make_set(folder: Path, seed: int = 0, videos: int = 6) -> tuple[Path, Path]:
    """Annotation file and image folder of a small synthetic set."""
    return write_synthetic_dataset(folder, seed=seed, videos=videos, size=(32, 64), length=4), folder / "JPEGImages"


def arguments(data: tuple[Path, Path] | None, output: Path, *changes: str, options: tuple[str, ...] = ()) -> list[str]:
    """Of scripts/train.py."""
    source = () if data is None else ("--train-json", str(data[0]), "--train-images", str(data[1]))
    return [
        *("--recipe", "tiny-synthetic", *source, "--output", str(output), "--cpu"),
        *("--log-every", "1", "--checkpoint-every", "2", "--workers", "1", *options),
        *("--set", *SMALL, *changes),
    ]


def load_script():
    """scripts/train.py as a module."""
    spec = importlib.util.spec_from_file_location("train_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

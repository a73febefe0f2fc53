"""Options of a training run that are not part of its recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """
    The options of `vita-hf train`, which `vita-hf train --help` describes.

    Only the recipe with its changes (`overrides`, `init`) and the data decide what the model learns; the other options
    decide how the training runs.

    Raises:
        ValueError: if options contradict each other or a number is out of range.

    Example:
    ```python
    >>> from pathlib import Path
    >>> from vita_hf.training.options import TrainingOptions

    >>> TrainingOptions(recipe="ytvis2019-r50", output=Path("runs/mine"), data_root=Path("data"), workers=4).workers
    4
    >>> TrainingOptions(recipe="ytvis2019-r50", output=Path("runs/mine"), train_json=Path("my.json"))
    Traceback (most recent call last):
    ValueError: expected both --train-json and --train-images, or neither

    ```
    """

    recipe: str
    output: Path
    overrides: Sequence[str] = ()
    init: str | None = None
    data_root: Path | None = None
    train_json: Path | None = None
    train_images: Path | None = None
    train_parquet: str | None = None
    streaming: bool = False
    eval_json: Path | None = None
    eval_images: Path | None = None
    follow_links: bool = False
    skip_broken: bool = False
    micro_batches: int = 1
    workers: int = 2
    gradient_checkpointing: bool = False
    log_every: int = 20
    checkpoint_every: int = 1000
    keep: int = 2
    evaluate_every: int = 0
    overwrite: bool = False
    report_to: str | None = None
    push_to_hub: str | None = None
    cpu: bool = False

    def __post_init__(self):
        if sum(source is not None for source in (self.data_root, self.train_json, self.train_parquet)) > 1:
            raise ValueError("expected only one of --data-root, --train-json and --train-parquet")
        if (self.train_json is None) != (self.train_images is None):
            raise ValueError("expected both --train-json and --train-images, or neither")
        if (self.eval_json is None) != (self.eval_images is None):
            raise ValueError("expected both --eval-json and --eval-images, or neither")
        if self.streaming and (self.train_parquet is None or self.skip_broken):
            raise ValueError(
                "--streaming: expected --train-parquet, and no --skip-broken (a stream has no other row to take)"
            )
        for name in ("micro_batches", "workers", "log_every", "checkpoint_every", "keep", "evaluate_every"):
            least = 0 if name in ("workers", "evaluate_every") else 1
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


__all__ = ["TrainingOptions"]

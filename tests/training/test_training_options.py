from pathlib import Path

import pytest

from vita_hf.training.options import TrainingOptions


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data_root": Path("data"), "train_parquet": "me/mine"}, "expected only one of --data-root, --train-json"),
        ({"train_json": Path("a.json")}, "expected both --train-json and --train-images"),
        ({"data_root": Path("data"), "eval_images": Path("frames")}, "expected both --eval-json and --eval-images"),
        ({"data_root": Path("data"), "streaming": True}, "--streaming: expected --train-parquet"),
        ({"train_parquet": "me/mine", "streaming": True, "skip_broken": True}, "and no --skip-broken"),
        ({"data_root": Path("data"), "keep": 0}, "keep: expected at least 1, got 0"),
        ({"data_root": Path("data"), "workers": -1}, "workers: expected at least 0, got -1"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(recipe="ytvis2019-r50", output=Path("out"), **options)

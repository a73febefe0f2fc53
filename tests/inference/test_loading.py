"""Model directories: broken files are refused in one sentence; another model in its place is noticed."""

import json
import os
import shutil

import pytest

from vita_hf.inference.loading import describe_model, load_config, load_model, load_processor


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "broken")


@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": {"1": "cat", "2": "dog"}},
        {"id2label": ["cat", "dog"]},
        {"id2label": {"cat": 0}},
        {"model_type": "no such type"},
        {"model_type": []},
        {"model_type": None},
        {"backbone_config": {"model_type": "swin", "depths": "four"}},
        {"backbone_config": {"model_type": "swin", "depths": []}},
        {"backbone_config": {"model_type": []}},
        {"backbone_config": 5},
        {"hidden_dim": "wide"},
        {"hidden_dim": 0},
        {"encoder_layers": 10**9},
        {"feature_strides": None},
        {"num_labels": 3},
        {"dtype": "float7"},
        {"dtype": 7},
    ],
)
def test_broken_configurations(model, changes):
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**content, **changes}))
    with pytest.raises((ValueError, OSError), match="broken"):
        load_model(model)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b'"text"', b"null", b"{", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize(("name", "load"), [("config", load_config), ("video_preprocessor_config", load_processor)])
def test_files_that_hold_no_settings(model, content, name, load):
    (model / f"{name}.json").write_bytes(content)
    with pytest.raises((ValueError, OSError), match="broken"):
        load(model)


@pytest.mark.parametrize(
    "changes",
    [
        *({"size": "large"}, {"size": {"shortest_edge": "x"}}, {"size": {"shortest_edge": 10**9}}),
        *({"size_divisor": 0}, {"size_divisor": 10**9}, {"video_processor_type": 5}),
        *({"image_mean": [float("nan")] * 3}, {"image_std": [float("inf")] * 3}, {"image_mean": [10**400] * 3}),
        *({"rescale_factor": float("nan")}, {"rescale_factor": 0}),
    ],
)
def test_broken_processors(model, changes):
    content = json.loads((model / "video_preprocessor_config.json").read_text())
    (model / "video_preprocessor_config.json").write_text(json.dumps({**content, **changes}))
    with pytest.raises((ValueError, OSError), match="broken"):
        load_processor(model)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 8 + b"{}", b"\x02\0\0\0\0\0\0\0{}"])
def test_broken_weights(model, content):
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises((ValueError, OSError), match="broken"):
        load_model(model)


def test_a_model_is_known_by_the_content_of_its_files(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "copy")
    before = describe_model(tiny_model)
    assert {"config.json", "model.safetensors"} <= before.keys()
    for file in (tmp_path / "copy").iterdir():
        os.utime(file, (1, 1))
    assert describe_model(tmp_path / "copy") == before
    weights = tmp_path / "copy" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(weights, (1, 1))
    after = describe_model(tmp_path / "copy")
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}
    assert describe_model("me/mine") == "me/mine"

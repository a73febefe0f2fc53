"""Describing a model, to notice that another one is in its place."""

import os
import shutil

from vita_hf.inference.loading import describe_model


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

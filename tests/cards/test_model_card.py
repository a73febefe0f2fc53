"""The card of a converted checkpoint."""

import re

from huggingface_hub import ModelCard
from PIL import Image

from helpers.detectron2 import SWIN, settings
from vita_hf.cards.model import model_card
from vita_hf.conversion import convert_checkpoint
from vita_hf.conversion.detectron2_config import config_from_detectron2
from vita_hf.recipes import config_from_recipe, load_recipe
from vita_hf.tracks.instances import VideoInstances
from vita_hf.video.reader import VideoReader


def test_model_card_of_a_recipe():
    config = config_from_recipe(load_recipe("ytvis2021-swinl"))
    text = model_card(config, "ytvis2021", "ytvis2021-swinl")
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "image-segmentation", "apache-2.0")
    assert data.tags[:2] == ["video-instance-segmentation", "vita"]
    assert data.datasets == ["coco", "youtube-vis-2021"]
    assert data.eval_results is None  # metadata would present the authors' numbers as these files'
    assert "# VITA, Swin-L, YouTube-VIS 2021" in text
    assert "| 57.5 | 80.6 | 61.0 | 47.7 | 62.6 |" in text
    assert "These are the authors' numbers: nothing was measured with this package" in text
    assert "top_k=10" in text


def test_model_card_without_published_numbers():
    for name in ("ytvis2019-r101", "coco-r50", "ovis-r101"):
        recipe = load_recipe(name)
        text = model_card(config_from_recipe(recipe), recipe.data.dataset, name)
        assert "Results" not in text
        assert f"top_k={recipe.evaluation.top_k}" in text
    text = model_card(config_from_detectron2(settings("swin")))
    assert "Results" not in text
    assert ModelCard(text).data.datasets is None


def test_model_card_of_a_recipe_with_a_backbone_without_name():
    text = model_card(config_from_recipe(load_recipe("tiny-synthetic")), "ytvis2019", "tiny-synthetic")
    assert "# VITA, YouTube-VIS 2019" in text


def test_code_in_the_model_card_runs(tmp_path, capsys):
    output = convert_checkpoint(**SWIN, output_dir=tmp_path / "model")
    frames = tmp_path / "clip"
    frames.mkdir()
    for t in range(3):
        Image.new("RGB", (64, 48), (40 * t, 90, 200)).save(frames / f"{t}.png")
    codes = re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), re.S)
    results = []
    for code in codes:
        replacements = {"path/to/this/directory": output, "clip.mp4": frames, "overlay.mp4": tmp_path / "overlay.mp4"}
        for example, path in (replacements | {"results.json": tmp_path / "results.json"}).items():
            code = code.replace(f'"{example}"', f'"{path}"')
        names = {}
        exec(compile(code, "card", "exec"), names)
        results.append((names["result"], capsys.readouterr().out.splitlines()))
    (tracks, _), (pairs, lines) = results
    assert pairs.size == (48, 64)
    assert VideoInstances.from_json(tmp_path / "results.json").to_json() == tracks.to_json()
    assert VideoReader(tmp_path / "overlay.mp4").count_frames() == tracks.num_frames == 3
    assert len(pairs) == len(lines) == 10
    assert all(re.fullmatch(r"LABEL_\d 0\.\d+ \[\d+, \d+, \d+\]", line) for line in lines)

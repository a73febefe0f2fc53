"""The data that a training reads: frames stay below their folder, unless links may lead out of it."""

import json

import datasets
import pytest

from helpers.training_runs import make_set
from vita_hf.data.annotations import AnnotationError
from vita_hf.recipes import load_recipe
from vita_hf.training.datasets import read_sources
from vita_hf.training.options import TrainingOptions


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    annotations, images = make_set(tmp_path / "set", videos=2)

    def read(**options):
        own = {"recipe": "tiny-synthetic", "train_json": annotations, "train_images": images}
        return read_sources(load_recipe("tiny-synthetic"), TrainingOptions(output=tmp_path / "out", **(own | options)))

    read.annotations, read.images = annotations, images
    return read


def test_links_out_of_the_folder_of_images(read, tmp_path):
    (read.images / "00001").rename(tmp_path / "elsewhere")
    (read.images / "00001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        AnnotationError, match=r"\(video 2\), frame 0 \(00001/00000\.jpg\): .*a symbolic link that leads"
    ):
        read()
    assert [source.num_rows for source in read(follow_links=True)] == [2]
    assert [source.num_rows for source in read(skip_broken=True)] == [1]
    (tmp_path / "link").symlink_to(read.images)
    (read.images / "00001").unlink()
    (tmp_path / "elsewhere").rename(read.images / "00001")
    assert [source.num_rows for source in read(train_images=tmp_path / "link")] == [2]


def test_names_that_lead_out_of_the_folder(read):
    content = json.loads(read.annotations.read_text())
    content["videos"][0]["file_names"][1] = "../annotations.json"
    read.annotations.write_text(json.dumps(content))
    for follow_links in (False, True):
        with pytest.raises(AnnotationError, match=r"frame 1 \(\.\./annotations\.json\): expected a name relative to"):
            read(follow_links=follow_links)

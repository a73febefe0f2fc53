import logging
from pathlib import Path

import pytest
import torch
from transformers import SwinConfig

from helpers.backends import require
from helpers.golden import VARIANTS, Golden, load_golden
from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation, VitaVideoProcessor


@pytest.fixture(params=VARIANTS, scope="module")
def golden(request) -> Golden:
    return load_golden(request.param)


@pytest.fixture(scope="module")
def model(golden):
    """The variant's model in evaluation mode, converted once for a test file."""
    return golden.model().eval()


@pytest.fixture(autouse=True)
def _loggers_as_they_were():
    """Scripts that tests call set levels for their whole process."""
    yield
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("vita_hf"):
            logger = logging.getLogger(name)
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)


def save_tiny_model(folder: Path) -> Path:
    """A model with as little in it as can be, and sure of its random opinions; takes frames of the size they have."""
    torch.manual_seed(0)
    swin = SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, out_indices=[1, 2, 3, 4])
    config = VitaConfig(
        backbone_config=swin,
        id2label={0: "cat", 1: "dog", 2: "fox", 3: "hen", 4: "owl"},
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=16,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        video_dim_feedforward=32,
        num_attention_heads=2,
        video_num_attention_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        num_last_layers=1,
        num_queries=10,
        num_video_queries=5,
        object_encoder_layers=1,
        object_decoder_layers=1,
        detector_chunk_size=4,
    )
    model = VitaForVideoInstanceSegmentation(config)
    with torch.no_grad():
        model.video_class_predictor.weight.mul_(8)
    model.save_pretrained(folder)
    VitaVideoProcessor(do_resize=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A directory with a tiny model and its processor; not to be changed."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(params=["cpp", "numpy"])
def kernels(request, monkeypatch):
    """Run a test with the RLE operators in C++, then with those in numpy."""
    monkeypatch.setenv("VITA_HF_KERNELS", "off" if request.param == "numpy" else "auto")
    if request.param == "cpp":
        require("cpp")

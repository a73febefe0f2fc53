import logging
from pathlib import Path

import pytest
import torch

from helpers.backends import require
from helpers.golden import VARIANTS, Golden, load_golden
from helpers.models import save_tiny_model


@pytest.fixture(params=VARIANTS, scope="module")
def golden(request) -> Golden:
    return load_golden(request.param)


@pytest.fixture(scope="module")
def model(golden):
    """The variant's model in evaluation mode, converted once per test file."""
    return golden.model().eval()


@pytest.fixture(autouse=True)
def _reset_loggers():
    """Undo what scripts under test do to the loggers of the process."""
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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Read-only folder with a tiny model and its processor."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(params=["cpp", "numpy"])
def kernels(request, monkeypatch):
    """Run a test with the RLE operators in C++, then with those in numpy."""
    monkeypatch.setenv("VITA_HF_KERNELS", "off" if request.param == "numpy" else "auto")
    if request.param == "cpp":
        require("cpp")

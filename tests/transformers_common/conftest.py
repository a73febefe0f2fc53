import sys

import pytest
import torch
from fetch import CACHE

sys.path.insert(0, str(CACHE))
torch.set_num_threads(1)  # on tensors this small, threads that wait for one another take up to 50 times as long


def pytest_configure(config):
    if not (CACHE / "transformers_tests").exists():
        raise pytest.UsageError(f"no common tests in {CACHE}: run tests/transformers_common/fetch.py first")
    for marker in (
        "accelerate_tests",
        "flash_attn_test",
        "flash_attn_3_test",
        "flash_attn_4_test",
        "order",
        "torch_compile_test",
    ):
        config.addinivalue_line("markers", f"{marker}: of transformers' common tests")

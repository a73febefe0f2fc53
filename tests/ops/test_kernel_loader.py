"""Loading the compiled kernels."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor

from vita_hf.ops import loader


def test_threads_load_a_library_once(monkeypatch):
    loaded = []

    def load(backend):
        time.sleep(0.1)  # as long as others need to ask, too
        loaded.append(backend)
        if len(loaded) > 1:
            raise RuntimeError("operators cannot be registered twice")

    monkeypatch.setattr(loader, "load", load)
    monkeypatch.setattr(loader, "_library_error", functools.cache(loader._library_error.__wrapped__))
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(loader.library_error, ["cpp"] * 8)) == [None] * 8
    assert loaded == ["cpp"]

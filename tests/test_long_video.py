"""The full-size video part on a video of 2,000 frames."""

import ctypes
from pathlib import Path

import pytest
import torch

from vita_hf import VitaConfig, modeling_associator, modeling_layers
from vita_hf.modeling_associator import VitaObjectDecoder, VitaObjectEncoder


def resident(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(key))


@pytest.fixture
def video_part():
    """The released models' object encoder and decoder (window 6, 6 + 3 layers, 256 channels)."""
    config = VitaConfig()
    config._attn_implementation = "sdpa"
    encoder, decoder = VitaObjectEncoder(config).eval(), VitaObjectDecoder(config).eval()

    def run(frame_queries):
        encoded = encoder(frame_queries, None).last_hidden_state
        return decoder(encoded, None).intermediate_hidden_states[-1]

    return run


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@torch.no_grad()
def test_2000_frames_need_at_most_1500_mib(video_part):
    frame_queries = torch.randn(1, 2000, 100, 256)
    video_part(frame_queries[:, :24])
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current size
    before = resident("VmRSS")
    out = video_part(frame_queries)
    peak = (resident("VmHWM") - before) / 2**20
    print(f"\npeak memory above the frame queries: {peak:.0f} MiB")
    assert out.isfinite().all()
    assert peak <= 1536


@torch.no_grad()
def test_chunks_equal_the_whole(video_part, monkeypatch):
    frame_queries = torch.randn(1, 27, 100, 256)
    expected = video_part(frame_queries)
    monkeypatch.setattr(modeling_associator, "_WINDOW_CHUNK", 2)
    monkeypatch.setattr(modeling_layers, "_FEED_FORWARD_CHUNK", 1000)
    torch.testing.assert_close(video_part(frame_queries), expected, rtol=0, atol=1e-5)

"""
Keep a video's mask features until its masks are computed.

All frames must pass through the detector before the first mask can be computed, and the mask features of a frame are
large: 256 channels at a quarter of the resolution, 15 MiB for a frame of 360×640.
"""

import errno
import logging
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import torch
from torch import Tensor

from ..text import counted
from .options import MaskFeatures

logger = logging.getLogger(__name__)

# In order of preference. "exact" excludes the stores that round to half precision.
_CHOICES: dict[str, tuple[MaskFeatures, ...]] = {
    "auto": ("device", "host", "disk", "recompute"),
    "exact": ("device", "recompute"),
}

# "auto" and "exact" fill at most this share of the free memory or disk.
_SHARE = 0.5
_UNKNOWN_MEMORY = 4 * 2**30  # assumed if the system does not tell its free memory


class MaskFeatureStore:
    """Keeps chunks of mask features (n, C, H/4, W/4) on their device, and returns them once, in order."""

    def __init__(self):
        self._chunks: list[Tensor] = []

    def append(self, features: Tensor) -> None:
        self._chunks.append(features)

    def chunks(self) -> Generator[Tensor]:
        self._chunks.reverse()
        while self._chunks:
            yield self._chunks.pop()

    def close(self) -> None:
        self._chunks.clear()


class HostStore(MaskFeatureStore):
    """Keeps them in main memory, in half precision."""

    def append(self, features: Tensor) -> None:
        super().append(to_half(features).cpu())


class DiskStore(MaskFeatureStore):
    """
    Keeps them in a file in the temporary folder (`TMPDIR`), in half precision.

    The file has no name (on Windows, the system deletes it with its last handle), so it disappears with the process
    however that ends.
    """

    def __init__(self):
        self._file = tempfile.TemporaryFile(prefix="vita-hf-", buffering=0)
        self._forms: list[tuple[torch.Size, torch.dtype]] = []

    def append(self, features: Tensor) -> None:
        features = to_half(features).cpu().contiguous()
        content = memoryview(features.view(torch.uint8).numpy()).cast("B")
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _no_space("the mask features have filled", self._file.tell()) from error
        self._forms.append((features.shape, features.dtype))

    def chunks(self) -> Generator[Tensor]:
        self._file.seek(0)
        for shape, dtype in self._forms:
            features = torch.empty(shape, dtype=dtype, device="cpu")
            content = memoryview(features.view(torch.uint8).numpy()).cast("B")
            while content:
                read = self._file.readinto(content)
                if not read:
                    raise OSError(f"the temporary file of mask features in {tempfile.gettempdir()} ended too early")
                content = content[read:]
            yield features

    def close(self) -> None:
        self._file.close()


class RecomputeStore(MaskFeatureStore):
    """Keeps nothing: `compute` yields all chunks again."""

    def __init__(self, compute: Callable[[], Generator[Tensor]]):
        super().__init__()
        self._compute = compute

    def append(self, features: Tensor) -> None:
        pass

    def chunks(self) -> Generator[Tensor]:
        return self._compute()


def to_half(features: Tensor) -> Tensor:
    """Convert to half precision: bfloat16 stays, everything else becomes float16, clamped to its range."""
    if features.dtype in (torch.float16, torch.bfloat16):
        return features
    limit = torch.finfo(torch.float16).max
    return features.clamp(-limit, limit).to(torch.float16)


def make_store(
    mode: MaskFeatures,
    features: Tensor,
    num_frames: int | None,
    recompute: Callable[[], Generator[Tensor]] | None,
) -> MaskFeatureStore:
    """
    Make the store for one video.

    Args:
        mode: See [`~vita_hf.inference.options.SegmentationOptions`]. "auto" takes disk if the length is unknown.
        features: The first chunk.
        num_frames: Length of the video, or None if unknown.
        recompute: Yields all chunks again; None if the video can be read only once.

    Raises:
        OSError: if `mode` is "disk" and the temporary folder has no room for the whole video.
        ValueError: if a second pass is needed over a video that can be read only once.
    """
    requested = mode
    if mode in _CHOICES:
        mode = _choose(mode, features, num_frames, recompute is not None)
        logger.debug(
            "mask features: %s (%s)", mode, "length unknown" if num_frames is None else counted(num_frames, "frame")
        )
    if mode == "recompute":
        if recompute is None:
            raise ValueError(
                f"mask_features={requested!r} needs a second pass over the video, and an iterator gives its frames "
                "only once: pass a file, a folder or a list of frames, or choose 'device', 'host' or 'disk'"
            )
        return RecomputeStore(recompute)
    if mode == "disk":
        needed = _half_size(features) * (num_frames or 0)
        if needed > free_disk():
            raise _no_space(f"the mask features of {num_frames} frames need", needed)
        return DiskStore()
    return HostStore() if mode == "host" else MaskFeatureStore()


def _choose(mode: MaskFeatures, features: Tensor, num_frames: int | None, rereadable: bool) -> MaskFeatures:
    if num_frames is None:
        return "disk" if mode == "auto" else "recompute" if rereadable else "device"
    full, half = (size * num_frames for size in (features[0].nbytes, _half_size(features)))
    room = {
        "device": lambda: full <= _SHARE * free_memory(features.device),
        "host": lambda: half <= _SHARE * free_memory(torch.device("cpu")),
        "disk": lambda: half <= _SHARE * free_disk(),
        "recompute": lambda: True,
    }
    return next(choice for choice in _CHOICES[mode] if room[choice]())


def _half_size(features: Tensor) -> int:
    """Return the number of bytes per frame in half precision."""
    return features[0].numel() * min(features.element_size(), 2)


def free_disk() -> int:
    """Return the number of free bytes in the temporary folder."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def free_memory(device: torch.device) -> int:
    """Return the number of free bytes in a device's memory; for the CPU within the limits of its container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that PyTorch holds but does not use is free as well.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return _UNKNOWN_MEMORY
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
    except (OSError, KeyError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used + int(cached)))


def _no_space(reason: str, size: int) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"no space left in the temporary folder {tempfile.gettempdir()}: {reason} {math.ceil(size / 2**20)} MiB; set "
        "TMPDIR to another folder, or use mask_features='recompute'",
    )

"""Where a video's mask features wait, from the detector's pass over its frames until the masks are computed.

A frame's mask features are large (256 channels at a quarter of the resolution: 15 MiB for 360×640), and all frames have
to pass the detector before the first mask can be computed.
"""

import errno
import logging
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MaskFeatures = Literal["auto", "exact", "device", "host", "disk", "recompute"]

Recompute = Callable[[], Generator[Tensor, None, None]]

# In order of preference. "exact" leaves out those that round to half precision.
_CHOICES = {"auto": ("device", "host", "disk", "recompute"), "exact": ("device", "recompute")}
MODES = (*_CHOICES, "device", "host", "disk", "recompute")

# Share of the free memory, or disk, that mask features may take where the choice is ours.
_SHARE = 0.5
_UNKNOWN_MEMORY = 4 * 2**30  # assumed where the system doesn't tell


class MaskFeatureStore(Protocol):
    """Keeps chunks `(n, C, H/4, W/4)` and gives them back in order, once."""

    def append(self, features: Tensor) -> None: ...

    def chunks(self) -> Generator[Tensor, None, None]: ...

    def close(self) -> None: ...


class DeviceStore:
    """Keeps them as they are, where they are."""

    def __init__(self):
        self._chunks: list[Tensor] = []

    def append(self, features: Tensor) -> None:
        self._chunks.append(features)

    def chunks(self) -> Generator[Tensor, None, None]:
        self._chunks.reverse()
        while self._chunks:
            yield self._chunks.pop()

    def close(self) -> None:
        self._chunks.clear()


class HostStore(DeviceStore):
    """Keeps them in the host's memory, in half precision."""

    def append(self, features: Tensor) -> None:
        super().append(to_half(features).cpu())


class DiskStore:
    """
    Keeps them in a file of the temporary folder (`TMPDIR`), in half precision.

    The file has no name (on Windows: the system deletes it with its last handle), so nothing is left of it however the
    process ends.
    """

    def __init__(self):
        self._file = tempfile.TemporaryFile(prefix="vita-hf-", buffering=0)
        self._chunks: list[tuple[torch.Size, torch.dtype]] = []

    def append(self, features: Tensor) -> None:
        features = to_half(features).cpu().contiguous()
        content = memoryview(features.view(torch.uint8).numpy()).cast("B")
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _no_space(self._file.tell(), None) from error
        self._chunks.append((features.shape, features.dtype))

    def chunks(self) -> Generator[Tensor, None, None]:
        self._file.seek(0)
        for shape, dtype in self._chunks:
            features = torch.empty(shape, dtype=dtype)
            content = memoryview(features.view(torch.uint8).numpy()).cast("B")
            while content:
                read = self._file.readinto(content)
                if not read:
                    raise OSError(f"the temporary file of mask features in {tempfile.gettempdir()} ended too early")
                content = content[read:]
            yield features

    def close(self) -> None:
        self._file.close()


class RecomputeStore:
    """
    Keeps nothing, and computes them again.

    Args:
        compute: Gives the chunks from the start.
    """

    def __init__(self, compute: Recompute):
        self._compute = compute

    def append(self, features: Tensor) -> None:
        pass

    def chunks(self) -> Generator[Tensor, None, None]:
        return self._compute()

    def close(self) -> None:
        pass


def to_half(features: Tensor) -> Tensor:
    """In half precision: bfloat16 as it is, everything else as float16, values beyond its range as the range's end."""
    if features.dtype in (torch.float16, torch.bfloat16):
        return features
    limit = torch.finfo(torch.float16).max
    return features.clamp(-limit, limit).to(torch.float16)


def check_mode(mode: str, rereadable: bool) -> None:
    """
    Complain about a mode that can't work, before anything is computed.

    Raises:
        ValueError: There is no such mode, or it needs a video that can be read twice.
    """
    if mode not in MODES:
        raise ValueError(f"mask_features must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    if mode == "recompute" and not rereadable:
        raise ValueError(
            "mask_features='recompute' reads the video twice, and an iterator gives its frames only once: pass a file, "
            "a folder or a list of frames, or choose 'device', 'host' or 'disk'"
        )


def make_store(
    mode: MaskFeatures,
    features: Tensor,
    num_frames: int | None,
    recompute: Recompute | None,
) -> MaskFeatureStore:
    """
    Make the store for one video.

    Args:
        mode: "auto" takes the first of device, host, disk, recompute that has room for the whole video, "exact" device
            or else recompute. If the video's length is unknown, "auto" takes disk.
        features: The first chunk.
        num_frames: The video's length, or None.
        recompute: Gives all chunks again; None if the video can't be read twice.

    Raises:
        OSError: "disk" is asked for and the temporary folder has no room for the whole video.
        ValueError: "exact" needs a second pass over a video that can't be read twice.
    """
    asked, half_size = mode, min(features.element_size(), 2)
    if mode in _CHOICES:
        mode = _choose(mode, features, num_frames, recompute is not None)
        logger.debug("mask features: %s (%s)", mode, "length unknown" if num_frames is None else f"{num_frames} frames")
    if mode == "recompute":
        if recompute is None:
            raise ValueError(
                f"mask_features={asked!r}: the mask features don't fit into memory, and an iterator can't be read twice"
            )
        return RecomputeStore(recompute)
    if mode == "disk" and num_frames is not None:
        needed = num_frames * features[0].numel() * half_size
        if needed > free_disk():
            raise _no_space(needed, num_frames)
    return {"device": DeviceStore, "host": HostStore, "disk": DiskStore}[mode]()


def _choose(mode: str, features: Tensor, num_frames: int | None, rereadable: bool) -> str:
    if num_frames is None:
        return "disk" if mode == "auto" else "recompute" if rereadable else "device"
    full = num_frames * features[0].numel() * features.element_size()
    half = num_frames * features[0].numel() * min(features.element_size(), 2)
    room = {
        "device": lambda: full <= _SHARE * free_memory(features.device),
        "host": lambda: half <= _SHARE * free_memory(torch.device("cpu")),
        "disk": lambda: half <= _SHARE * free_disk(),
        "recompute": lambda: True,
    }
    return next(choice for choice in _CHOICES[mode] if room[choice]())


def free_disk() -> int:
    """Free bytes in the temporary folder."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def free_memory(device: torch.device) -> int:
    """Free bytes of a device's memory; of the host's within the limits of its container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch holds but doesn't use is free as well.
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


def _no_space(size: int, num_frames: int | None) -> OSError:
    what = (
        f"the mask features of {num_frames} frames need {math.ceil(size / 2**20)} MiB"
        if num_frames
        else (f"the mask features have filled it after {math.ceil(size / 2**20)} MiB")
    )
    return OSError(
        errno.ENOSPC,
        f"no space left in the temporary folder {tempfile.gettempdir()}: {what}; set TMPDIR to another folder, or use "
        "mask_features='recompute'",
    )


__all__ = [
    "MODES",
    "DeviceStore",
    "DiskStore",
    "HostStore",
    "MaskFeatureStore",
    "MaskFeatures",
    "RecomputeStore",
    "check_mode",
    "free_disk",
    "free_memory",
    "make_store",
    "to_half",
]

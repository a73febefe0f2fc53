"""Shared by the benchmarks: clocks, peak memory, new processes, and the device's name."""

import ctypes
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch


def device_name(device: torch.device, threads: int) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {threads} threads"


def now(device: torch.device) -> float:
    """Return the time in seconds when the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_new_process(function: Callable, *args: Any) -> Any:
    """Call a function in a new Python process, which takes nothing but the environment from this one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args).result()


def peak_memory(run: Callable[[], Any], device: torch.device) -> float:
    """Call `run`, and return its peak bytes above those in use before; NaN on a CPU without Linux's /proc."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        run()
        return float("nan")

    def resident(key: str) -> int:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(key))

    ctypes.CDLL("libc.so.6").malloc_trim(0)  # returns freed memory to the system
    reset.write_text("5")  # resets the peak to the current size
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before

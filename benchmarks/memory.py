"""Memory of this process, on the host and on the GPU, now and at its peak."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SAMPLE_INTERVAL_S = 0.005


def resident_bytes() -> int:
    """Resident memory of this process; 0 where neither psutil nor /proc is available."""
    try:
        import psutil

        return int(psutil.Process().memory_info().rss)
    except ImportError:
        pass
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def gpu_bytes(device: torch.device) -> int:
    """Memory that torch has allocated on a GPU; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def available_bytes() -> int | None:
    """Memory that the host has available; None where /proc is not available."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return None


@contextmanager
def peak_growth(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yields a function that returns, after the block, the peak over the memory before it.

    Counts torch's allocations on a GPU, and resident memory on a CPU.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    before = highest = resident_bytes()
    stopped = threading.Event()

    def sample() -> None:
        nonlocal highest
        while not stopped.wait(SAMPLE_INTERVAL_S):
            highest = max(highest, resident_bytes())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield lambda: highest - before
    finally:
        stopped.set()
        sampler.join()
        highest = max(highest, resident_bytes())

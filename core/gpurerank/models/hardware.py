"""The machine and the versions, so that figures of two runs can be told apart."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numpy",
)
INSTRUCTION_SETS = ("avx2", "fma", "avx512", "avx_vnni", "amx", "asimd", "sve", "bf16", "i8mm")


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine; an empty string or 0 where it could not be found out."""

    cpu: str
    instruction_sets: list[str]
    cores: int
    threads: int
    memory_bytes: int
    gpu: str = ""
    gpu_memory_bytes: int = 0
    driver: str = ""
    cuda: str = ""

    @property
    def lines(self) -> list[str]:
        """The machine in words: the processor, and the GPU where one is used."""
        shown = [each for each in self.instruction_sets if each.startswith(("avx", "amx", "asimd"))]
        said = [
            f"{self.cpu}, {self.cores} cores, {self.threads} threads, {' '.join(shown)}"
            f", {self.memory_bytes / 2**30:.0f} GiB"
        ]
        if self.gpu:
            size = self.gpu_memory_bytes / 2**30
            said.append(f"{self.gpu}, {size:.0f} GiB, driver {self.driver}, CUDA {self.cuda}")
        return said


def find_hardware(device: torch.device) -> Hardware:
    """What this machine says of itself."""
    cpu, flags = _cpu()
    found = Hardware(cpu, flags, os.cpu_count() or 0, torch.get_num_threads(), _memory_bytes())
    if device.type != "cuda":
        return found
    properties = torch.cuda.get_device_properties(device)
    return Hardware(
        found.cpu,
        found.instruction_sets,
        found.cores,
        found.threads,
        found.memory_bytes,
        properties.name,
        properties.total_memory,
        _driver(device.index or 0),
        torch.version.cuda or "",
    )


def find_versions(*more: str) -> dict[str, str]:
    """Versions of the packages that speed and scores depend on, and more; without those missing."""
    # By name: the root stands for every layer, and an import statement would point upwards.
    ours = str(importlib.import_module("gpurerank").__version__)
    found = {"python": platform.python_version(), "gpurerank": ours}
    for package in (*PACKAGES, *more):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    # The build, such as +cu130, is part of what was measured.
    found["torch"] = str(torch.__version__)
    return found


def _cpu() -> tuple[str, list[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), []
    lines = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    values = {name.strip().lower(): value.strip() for name, value in reversed(lines)}
    flags = (values.get("flags") or values.get("features") or "").split()
    wanted = sorted(flag for flag in flags if flag.startswith(INSTRUCTION_SETS))
    return values.get("model name") or platform.machine(), wanted


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _driver(index: int) -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", str(index)]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()

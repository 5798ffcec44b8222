"""Which device and which number format to run on."""

from __future__ import annotations

import functools
import logging
import math
import platform
import threading
from pathlib import Path
from typing import Any

import torch

from gpurerank.errors import DeviceError, InputError

# Held while a CUDA graph is recorded and while a device is synchronized: a synchronization on one
# thread invalidates what another records.
DEVICE_SYNC_LOCK = threading.Lock()
# Rows that run at the same time share a CPU's last cache.
_MOST_LANES = 4
# A text is read in one lane: where it may be longer, all threads should read it.
_LANE_LENGTH = 2_048
_SETTING_THREADS = threading.Lock()

logger = logging.getLogger("gpurerank")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """The device that a name stands for; "auto" is a GPU where there is one.

    Raises:
        InputError: No such device here.
        DeviceError: The device is a GPU that the parent of this forked process has used.
    """
    if device.startswith(("auto", "cuda")):
        _check_cuda_after_fork(device)
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {device!r} cannot be used here: {reason}; try 'auto' or 'cpu'"
        ) from error
    if resolved.type == "cuda" and resolved.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return resolved


def _check_cuda_after_fork(device: str) -> None:
    # Where the parent has only looked for a GPU that is not there, torch calls the fork bad too;
    # ``device_count`` asks NVML, which works in a forked process.
    if torch.cuda._is_in_bad_fork() and torch.cuda.device_count() > 0:
        raise DeviceError(
            f"device {device!r} cannot be used in this forked process, because its parent has"
            " used CUDA; start workers with 'spawn' (gunicorn: without --preload), or use"
            " device='cpu'"
        )


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The number format that a name stands for.

    "auto" is bfloat16 where the hardware multiplies in it, float16 on an older GPU, else float32.

    Raises:
        InputError: Not one of auto, float32, bfloat16, float16.
    """
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
        fast = device.type == "cpu" and cpu_multiplies_bfloat16()
        return torch.bfloat16 if fast else torch.float32
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; it must be 'auto' or one of {', '.join(DTYPES)}")
    if device.type == "cpu" and _cpu_emulates(dtype):
        _warn_of_emulation(dtype)
    return DTYPES[dtype]


def _cpu_emulates(dtype: str) -> bool:
    """Whether this CPU converts each number of a format to float32 and back; x86 only."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        # torch does not tell which formats other processors multiply in.
        return False
    if dtype == "bfloat16":
        return not cpu_multiplies_bfloat16()
    supported: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return dtype == "float16" and not (supported.get("avx512_fp16") or supported.get("amx_fp16"))


@functools.cache
def _warn_of_emulation(dtype: str) -> None:
    logger.warning(
        "dtype=%r is emulated on this CPU and several times slower than 'float32'; use"
        " dtype='auto' or 'float32'",
        dtype,
    )


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has bfloat16 matrix instructions (AMX or AVX-512 BF16).

    Elsewhere bfloat16 is emulated and slower than float32.
    """
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def lanes_of(device: torch.device, max_length: int) -> int:
    """Batches that should run on a device at the same time, each with as many of its threads.

    Threads that share a product wait at its end for the slowest. On 2 cores of an EPYC 200 pairs of
    MiniLM-L6 took 12.1 s as two batches at a time with one thread each, and 14.5 s as one with two;
    more cores were not measured.

    Args:
        device: Where the model is.
        max_length: Tokens that a sequence may have.
    """
    if device.type != "cpu" or max_length > _LANE_LENGTH:
        return 1
    threads = torch.get_num_threads()
    return next(lanes for lanes in range(_MOST_LANES, 0, -1) if threads % lanes == 0)


def enter_lane(lanes: int) -> None:
    """Lets the calling thread compute with its share of the CPU's threads, and no other with less.

    torch keeps the number for each thread, but those that begin later take the last one that any
    thread has set; so it is set again, on a thread that ends.
    """
    with _SETTING_THREADS:
        # Also for a single lane: its number is fixed when it is first asked for.
        everyone = torch.get_num_threads()
        if lanes == 1:
            return
        torch.set_num_threads(max(1, everyone // lanes))
        restoring = threading.Thread(target=torch.set_num_threads, args=(everyone,))
        restoring.start()
        restoring.join()


def tokens_per_batch(device: torch.device, lanes: int) -> tuple[int, int]:
    """Tokens below which a batch uses a device badly, and the most that one should have.

    On a CPU the activations of a batch should stay in its caches, and its weights are read anew for
    each: on 2 cores of an EPYC 100 pairs of MiniLM-L6 took 2.8 s in batches of 512 tokens, 2.5 s in
    1,024, 2.4 s in 2,048 and 3.2 s in one of 13,000 (medians of several tries). In two lanes 512
    are as fast as 1,024, and end sooner.
    """
    if device.type != "cpu":
        return 4_096, 65_536
    return (1_024, 2_048) if lanes == 1 else (512, 1_024)


def remembered_tokens(device: torch.device) -> int:
    """Tokens of texts that are worth remembering: beside a CPU's work tokenizing is nothing."""
    return 500_000 if device.type == "cpu" else 8_000_000


def respect_cpu_quota(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> None:
    """Lowers torch's threads to the processor time that a container grants.

    torch counts the host's cores. With more threads than time the kernel stops all of them for a
    part of every 0.1 s.

    Args:
        cpu_max: Where Linux says "quota period" in microseconds, or "max period".
    """
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        granted = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return
    if 1 <= granted < torch.get_num_threads():
        logger.info("torch uses %d threads: the container's quota", granted)
        torch.set_num_threads(granted)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a format, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def describe_hardware() -> dict[str, str]:
    """What torch sees of this machine, by subject."""
    fast = "yes" if cpu_multiplies_bfloat16() else "no"
    capability = torch.backends.cpu.get_cpu_capability()
    found = {
        "cpu": f"{torch.get_num_threads()} threads, {capability}, bfloat16 instructions: {fast}"
    }
    if not torch.cuda.is_available():
        build = torch.version.cuda
        why = f"; this torch is built for CUDA {build}: see nvidia-smi" if build else " (CPU build)"
        found["gpu"] = f"none that torch can use{why}"
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return found

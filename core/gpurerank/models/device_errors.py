"""Errors of a device, told apart: out of memory, device lost, or a failed batch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from gpurerank.errors import DeviceError, GPURerankError, OutOfMemoryError, ScoringError
from gpurerank.models.devices import DEVICE_SYNC_LOCK

Result = TypeVar("Result")


def run_guarded(work: Callable[[], Result], device: torch.device) -> Result:
    """Runs work on a device and translates what it raises into errors of this package.

    Raises:
        OutOfMemoryError: It did not fit; its memory is free again.
        DeviceError: The GPU is lost.
        ScoringError: It failed for another reason.
    """
    try:
        return work()
    except GPURerankError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise _translate(error, device) from error
    # Outside the handler: its traceback would keep the failed batch's tensors alive.
    _empty_cache(device)
    raise OutOfMemoryError("a batch does not fit into memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    phrases = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def free_unused() -> None:
    """Returns the memory of models that are no longer referenced to the devices."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _empty_cache(device: torch.device) -> None:
    try:
        if device.type == "cuda":
            # On this device: the current one may be another, whose cache would be emptied.
            with torch.cuda.device(device):
                torch.cuda.empty_cache()
        elif device.type == "mps":
            torch.mps.empty_cache()
    except Exception as error:
        raise _translate(error, device) from error


def _translate(error: Exception, device: torch.device) -> ScoringError:
    if device.type == "cuda":
        try:
            with DEVICE_SYNC_LOCK:
                torch.cuda.synchronize(device)
        except Exception as device_error:
            # An error that remains after the batch is the device's, not the batch's.
            message = f"{device} is lost: {_first_line(device_error)}; start a new process"
            return DeviceError(message)
    return ScoringError(f"the model failed on a batch: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

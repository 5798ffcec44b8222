"""What a failing device says, told apart: out of memory, lost, or wrong."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from gpurerank.errors import DeviceError, GPURerankError, OutOfMemoryError, ScoringError
from gpurerank.models.devices import WAITING_FOR_DEVICE

Result = TypeVar("Result")


def guarded(work: Callable[[], Result], device: torch.device) -> Result:
    """Runs a batch; what it raises is one of this package's errors.

    Raises:
        OutOfMemoryError: It did not fit; what it held is free again.
        DeviceError: The GPU failed and stays so.
        ScoringError: It failed for another reason.
    """
    try:
        return work()
    except GPURerankError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise _named(error, device) from error
    # Outside the handler: its traceback would keep the failed batch's tensors alive.
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise OutOfMemoryError("a batch does not fit into memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the GPU or the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(each in str(error) for each in said)


def free_unused() -> None:
    """Gives the memory of a model that nobody holds any more back to the device."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _named(error: Exception, device: torch.device) -> ScoringError:
    if device.type == "cuda":
        try:
            with WAITING_FOR_DEVICE:
                torch.cuda.synchronize(device)
        except Exception as lost:
            # An error that is still there after the batch is the device's, not the batch's.
            return DeviceError(f"{device} is lost: {_first_line(lost)}; start a new process")
    return ScoringError(f"the model failed on a batch: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

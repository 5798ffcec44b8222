"""Going on when a batch does not fit into memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from gpurerank.errors import ScoringError
from gpurerank.types import FloatArray

Item = TypeVar("Item")


def in_halves(run: Callable[[Sequence[Item]], FloatArray], batch: Sequence[Item]) -> FloatArray:
    """Runs a batch; out of memory, its halves, down to one item.

    Raises:
        ScoringError: One item alone does not fit, or the model failed for another reason.
    """
    try:
        return run(batch)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise ScoringError(f"the model failed on a batch: {error}") from error
        if len(batch) == 1:
            raise ScoringError(
                "one pair alone does not fit into memory; lower max_length or use a smaller model"
            ) from error
    # Outside the handler: its traceback would keep the failed batch's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(batch) // 2
    return np.concatenate((in_halves(run, batch[:middle]), in_halves(run, batch[middle:])))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the GPU or the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_unused() -> None:
    """Gives the memory of a model that nobody holds any more back to the device."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()

"""Number formats of a loaded model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def convert_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Converts the weights of a model as ``from_pretrained(dtype=...)`` would.

    Unlike ``model.to(dtype)`` this leaves buffers as they are: rotary embeddings keep their
    frequencies in one, and in bfloat16 the angle of position 500 would be off by up to 0.6 radian.
    It also leaves what transformers keeps in float32, such as the output projection of T5.

    Args:
        model: Any module, converted in place.
        dtype: A floating point format.
    """
    kept = _float32_modules(model, dtype)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and kept.isdisjoint(name.split(".")):
            parameter.data = parameter.data.to(dtype)


@contextmanager
def weights_in_float32(model: nn.Module) -> Iterator[None]:
    """Converts the weights to float32 and, at the end, back: exact, but twice the memory."""
    formats = [(parameter, parameter.dtype) for parameter in model.parameters()]
    try:
        for parameter, dtype in formats:
            if dtype.is_floating_point:
                parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, dtype in formats:
            parameter.data = parameter.data.to(dtype)


def _float32_modules(model: nn.Module, dtype: torch.dtype) -> set[str]:
    # transformers keeps one list for float16 and one for every half precision.
    attributes = ["_keep_in_fp32_modules_strict"]
    if dtype == torch.float16:
        attributes.append("_keep_in_fp32_modules")
    return {
        name
        for module in model.modules()
        for attribute in attributes
        for name in getattr(module, attribute, None) or ()
    }

"""Attention over a packed row, registered with transformers under ``PACKED_ATTENTION``."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from gpurerank.errors import ModelError
from gpurerank.models.packing import Layout

varlen_attn: Any
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

PACKED_ATTENTION = "gpurerank_packed"
_VARLEN_OPTIONS = frozenset(
    inspect.signature(varlen_attn).parameters if varlen_attn is not None else ()
)
# Arguments that change what attention computes and that this one does not know.
_UNSUPPORTED = ("softcap", "position_bias", "s_aux", "head_mask")

_row = threading.local()


@contextmanager
def attending(layout: Layout) -> Iterator[None]:
    """Tells attention on this thread where the sequences of the packed row lie."""
    _row.layout = layout
    try:
        yield
    finally:
        del _row.layout


def current_layout() -> Layout:
    """Where the sequences of the row lie that this thread is working on."""
    layout: Layout = _row.layout
    return layout


def packed_attention_available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packed attention can run: always on a CPU, on a GPU in half precision only."""
    if device.type == "cpu":
        return True
    return device.type == "cuda" and varlen_attn is not None and dtype != torch.float32


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Each sequence of the row attends to itself alone.

    Args:
        module: The attention module; says whether it is causal.
        query: Shape (1, heads, tokens, head_dim); key and value may have fewer heads.
        key: As query.
        value: As query.
        attention_mask: Ignored: the layout says what attends to what.
        scaling: Factor on the dot products; None is head_dim ** -0.5.
        sliding_window: Positions at a distance of this or more are not attended to.
        is_causal: Overrides the module's own.
        options: What transformers passes beside; an argument that would change the result raises.

    Returns:
        Shape (1, tokens, heads, head_dim), and None for the weights.
    """
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise ModelError(f"packed attention does not know {name!r}")
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))  # (tokens, heads, head_dim)
    attended = attend(
        q, k, v, current_layout(), scale=scaling, causal=causal, sliding_window=sliding_window
    )
    return attended.unsqueeze(0), None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float | None = None,
    causal: bool = False,
    sliding_window: int | None = None,
) -> Tensor:
    """Attention within each sequence of a row.

    Args:
        query: Shape (tokens, heads, head_dim); key and value may have fewer heads.
        key: As query.
        value: As query.
        layout: Where the sequences lie.
        scale: Factor on the dot products; None is head_dim ** -0.5.
        causal: Whether a position attends only to those before it.
        sliding_window: Positions at a distance of this or more are not attended to.

    Returns:
        Shape (tokens, heads, head_dim).
    """
    window = sliding_window
    if window is not None and window > layout.longest:
        window = None
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    run = _attend_varlen if query.is_cuda else _attend_runs
    return run(query, key, value, layout, scale, causal, window)


def _attend_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    heads, head_dim = query.shape[1:]
    options: dict[str, Any] = {}
    if "scale" in _VARLEN_OPTIONS:
        options["scale"] = scale
    elif scale != head_dim**-0.5:
        query = query * (scale * head_dim**0.5)
    if key.shape[1] != heads:
        if "enable_gqa" in _VARLEN_OPTIONS:
            options["enable_gqa"] = True
        else:
            groups = heads // key.shape[1]
            key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    if "window_size" in _VARLEN_OPTIONS:
        reach = -1 if window is None else window - 1
        options["window_size"] = (reach, 0 if causal else reach)
    elif window is not None:
        raise ModelError("this torch has no sliding window for packed attention; 2.12 has it")
    else:
        options["is_causal"] = causal
    bounds, longest = layout.cu_seqlens, layout.longest
    attended: Tensor = varlen_attn(query, key, value, bounds, bounds, longest, longest, **options)
    return attended


def _attend_runs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    gqa = key.shape[1] != query.shape[1]
    attended = query.new_empty(query.shape)
    start = 0
    for length, count in layout.runs:
        stop = start + length * count
        q, k, v = (
            each[start:stop].unflatten(0, (count, length)).transpose(1, 2)
            for each in (query, key, value)
        )  # (count, heads, length, head_dim)
        mask = _band(length, window, causal, query.device) if window else None
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal and mask is None, scale=scale, enable_gqa=gqa
        )
        attended[start:stop].unflatten(0, (count, length)).copy_(out.transpose(1, 2))
        start = stop
    return attended


def _band(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    """Shape (length, length), True where a position may attend."""
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    near = distance.abs() < window
    return near & (distance >= 0) if causal else near


AttentionInterface.register(PACKED_ATTENTION, packed_attention)

"""Attention over a packed row, registered with transformers under ``PACKED_ATTENTION``."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass
class Reading:
    """One pass of a thread over a packed row.

    Attributes:
        layout: Where the sequences lie among the hidden states, as far as the pass has come.
        firsts_only: Nobody will look at another token than the first of each sequence. Layers that
            know of it leave the others out once nothing depends on them any more.
    """

    layout: Layout
    firsts_only: bool = False

    def narrow(self) -> None:
        """From here on the hidden states are those of the first tokens alone."""
        self.layout = self.layout.of_firsts


_here = threading.local()


@contextmanager
def reading(layout: Layout, *, firsts_only: bool = False) -> Iterator[Reading]:
    """Tells attention, layers and head on this thread what the row is that passes through them."""
    outer = current_reading()
    _here.reading = Reading(layout, firsts_only)
    try:
        yield _here.reading
    finally:
        _here.reading = outer


def current_reading() -> Reading | None:
    """The pass over a packed row that this thread is in, or None."""
    return getattr(_here, "reading", None)


def expected_reading() -> Reading:
    """The pass over a packed row that this thread is in.

    Raises:
        ModelError: It is in none.
    """
    found = current_reading()
    if found is None:
        raise ModelError("what reads packed rows was given something else")
    return found


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
    """Each sequence of the row attends to itself, and to the prefix that the layout gives it.

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
    layout = expected_reading().layout
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))  # (tokens, heads, head_dim)
    attended = attend(q, k, v, layout, scale=scaling, causal=causal, sliding_window=sliding_window)
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
    """Attention within each sequence of a row, and to its keys that lie elsewhere.

    Args:
        query: Shape (tokens, heads, head_dim); key and value may have fewer heads.
        key: As query, or more: what ``layout.keys`` speaks of.
        value: As key.
        layout: Where the sequences lie.
        scale: Factor on the dot products; None is head_dim ** -0.5.
        causal: Whether a position attends only to those before it.
        sliding_window: Positions at a distance of this or more are not attended to.

    Returns:
        Shape (tokens, heads, head_dim); of a sequence without keys anything.

    Raises:
        ModelError: A prefix is read once, but what follows it would have a part in it.
    """
    keys = layout.keys
    if keys is not None and keys.places is not None:
        if not causal:
            raise ModelError("only causal attention can share a prefix")
        key, value = (each.index_select(0, keys.places) for each in (key, value))
    window = sliding_window
    if window is not None and window > (keys or layout).longest:
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
    # Where a sequence has more keys than tokens, the kernel takes the tokens for the last of them.
    answering = (layout.cu_seqlens, layout.longest)
    if layout.keys is not None:
        answering = (layout.keys.bounds, layout.keys.longest)
    bounds, longest = zip((layout.cu_seqlens, layout.longest), answering, strict=True)
    attended: Tensor = varlen_attn(query, key, value, *bounds, *longest, **options)
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
    asked = start = 0
    for length, keys, count in layout.runs:
        to, stop = asked + length * count, start + keys * count
        q = query[asked:to].unflatten(0, (count, length)).transpose(1, 2)
        k, v = (
            each[start:stop].unflatten(0, (count, keys)).transpose(1, 2) for each in (key, value)
        )  # (count, heads, keys, head_dim)
        banded = window is not None or (causal and keys > length)
        mask = _band(length, keys, window, causal, query.device) if banded else None
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal and mask is None, scale=scale, enable_gqa=gqa
        )
        attended[asked:to].unflatten(0, (count, length)).copy_(out.transpose(1, 2))
        asked, start = to, stop
    return attended


def _band(length: int, keys: int, window: int | None, causal: bool, device: torch.device) -> Tensor:
    """Shape (length, keys), True where one of the last positions may attend to one of all."""
    place = torch.arange(keys, device=device)
    distance = place[keys - length :, None] - place[None, :]
    near = distance.abs() < (window or keys)
    return near & (distance >= 0) if causal else near


AttentionInterface.register(PACKED_ATTENTION, packed_attention)

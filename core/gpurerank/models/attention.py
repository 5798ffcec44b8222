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
# Arguments that change what attention computes and that this implementation does not support.
_UNSUPPORTED = ("softcap", "position_bias", "s_aux", "head_mask")


@dataclass
class PackedPass:
    """One forward pass of a thread over a packed row.

    Attributes:
        layout: Where the sequences lie among the hidden states at this point of the pass.
        cls_only: Only the first token of each sequence is read in the end, so the last layer may
            leave the others out.
    """

    layout: Layout
    cls_only: bool = False

    def keep_cls_tokens(self) -> None:
        """Records that the hidden states from here on are those of the CLS tokens alone."""
        self.layout = self.layout.cls_layout


_thread = threading.local()


@contextmanager
def packed_pass(layout: Layout, *, cls_only: bool = False) -> Iterator[PackedPass]:
    """Gives attention, layers and head on this thread the layout of the row that they process.

    transformers passes no such argument through its modules, so it travels by thread.
    """
    outer = current_pass()
    _thread.packed_pass = PackedPass(layout, cls_only)
    try:
        yield _thread.packed_pass
    finally:
        _thread.packed_pass = outer


def current_pass() -> PackedPass | None:
    """The pass that the calling thread is in, or None."""
    return getattr(_thread, "packed_pass", None)


def require_pass() -> PackedPass:
    """The pass that the calling thread is in.

    Raises:
        ModelError: It is in none.
    """
    packed = current_pass()
    if packed is None:
        raise ModelError("packed attention was called outside a pass over a packed row")
    return packed


def packed_attention_available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packed attention can run: always on a CPU, on CUDA only in half precision."""
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
    """Attention as transformers calls it: within each sequence, and to its shared prefix.

    Args:
        module: The attention module, which knows whether it is causal.
        query: Shape (1, heads, tokens, head_dim); key and value may have fewer heads.
        key: As query.
        value: As query.
        attention_mask: Ignored; the layout replaces it.
        scaling: Factor on the dot products; None is head_dim ** -0.5.
        sliding_window: Positions at a distance of this or more are not attended to.
        is_causal: Overrides the module's own setting.
        options: Other arguments of transformers; one that would change the result raises.

    Returns:
        Shape (1, tokens, heads, head_dim), and None in place of attention weights.

    Raises:
        ModelError: An argument is not supported, or the thread is in no pass.
    """
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise ModelError(f"packed attention does not support {name!r}")
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    layout = require_pass().layout
    # (1, heads, tokens, head_dim) to (tokens, heads, head_dim)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
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
    """Attention within each sequence of a row, and to keys that it shares with others.

    Args:
        query: Shape (tokens, heads, head_dim); key and value may have fewer heads.
        key: As query, or with the tokens that ``layout.keys`` refers to.
        value: As key.
        layout: Where the sequences lie.
        scale: Factor on the dot products; None is head_dim ** -0.5.
        causal: Whether a position attends only to those before it.
        sliding_window: Positions at a distance of this or more are not attended to.

    Returns:
        Shape (tokens, heads, head_dim); undefined for a sequence without keys.

    Raises:
        ModelError: A prefix is shared, but attention is not causal, so the prefix would depend on
            what follows it.
    """
    keys = layout.keys
    if keys is not None and keys.indices is not None:
        if not causal:
            raise ModelError("only causal attention can share a prefix")
        key, value = (states.index_select(0, keys.indices) for states in (key, value))
    window = sliding_window
    # A window that reaches over every sequence changes nothing.
    if window is not None and window >= (keys or layout).max_seqlen:
        window = None
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    attention = _attend_varlen if query.is_cuda else _attend_by_length
    return attention(query, key, value, layout, scale, causal, window)


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
            key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    if "window_size" in _VARLEN_OPTIONS:
        reach = -1 if window is None else window - 1
        options["window_size"] = (reach, 0 if causal else reach)
    elif window is not None:
        raise ModelError("packed attention needs torch 2.11 or newer for a sliding window")
    else:
        options["is_causal"] = causal
    if "num_splits" in _VARLEN_OPTIONS and torch.version.hip is None:
        # Keeps the flash kernel on torch 2.14 and newer. Otherwise Hopper and Blackwell switch to
        # cuDNN, which builds a plan for every new total of tokens and never evicts one.
        options["num_splits"] = 1
    # Where a sequence has more keys than queries, the kernel aligns the queries with the last keys.
    keys = layout if layout.keys is None else layout.keys
    attended: Tensor = varlen_attn(
        query,
        key,
        value,
        layout.cu_seqlens,
        keys.cu_seqlens,
        layout.max_seqlen,
        keys.max_seqlen,
        **options,
    )
    return attended


def _attend_by_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Attention on a CPU: neighbours of equal length are one batch without padding."""
    gqa = key.shape[1] != query.shape[1]
    attended = query.new_empty(query.shape)
    query_start = key_start = 0
    for length, key_length, count in layout.equal_lengths:
        query_stop, key_stop = query_start + length * count, key_start + key_length * count
        # (count * length, heads, head_dim) to (count, heads, length, head_dim)
        q = query[query_start:query_stop].unflatten(0, (count, length)).transpose(1, 2)
        k, v = (
            states[key_start:key_stop].unflatten(0, (count, key_length)).transpose(1, 2)
            for states in (key, value)
        )
        needs_mask = window is not None or (causal and key_length > length)
        mask = None
        if needs_mask:
            mask = _attention_mask(length, key_length, window, causal, query.device)
        out = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=causal and mask is None,
            scale=scale,
            enable_gqa=gqa,
        )
        attended[query_start:query_stop].unflatten(0, (count, length)).copy_(out.transpose(1, 2))
        query_start, key_start = query_stop, key_stop
    return attended


def _attention_mask(
    length: int, key_length: int, window: int | None, causal: bool, device: torch.device
) -> Tensor:
    """Shape (length, key_length), True where a query may attend; queries are the last positions."""
    position = torch.arange(key_length, device=device)
    distance = position[key_length - length :, None] - position[None, :]
    near = distance.abs() < (window or key_length)
    return near & (distance >= 0) if causal else near


AttentionInterface.register(PACKED_ATTENTION, packed_attention)

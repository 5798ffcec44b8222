"""Pooling over a packed row: from one vector per token to one per sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gpurerank.models.attention import current_pass
from gpurerank.models.packing import Layout


def first_tokens(hidden: Tensor, layout: Layout) -> Tensor:
    """First token of each sequence: (1, tokens, hidden) to (sequences, hidden)."""
    return hidden[0].index_select(0, layout.cls_indices)


def last_tokens(hidden: Tensor, layout: Layout) -> Tensor:
    """Last token of each sequence: (1, tokens, hidden) to (sequences, hidden)."""
    return hidden[0].index_select(0, layout.last_indices)


def mean_tokens(hidden: Tensor, layout: Layout) -> Tensor:
    """Mean over the tokens of each sequence: (1, tokens, hidden) to (sequences, hidden).

    Summed in float32, whatever the model's precision.
    """
    lengths = layout.cu_seqlens.diff().long()
    tokens = hidden.shape[1]
    owners = torch.repeat_interleave(
        torch.arange(len(lengths), device=hidden.device), lengths, output_size=tokens
    )
    sums = torch.zeros(
        (len(lengths), hidden.shape[-1]), dtype=torch.float32, device=hidden.device
    ).index_add_(0, owners, hidden[0].float())
    means = sums[: layout.output_count] / lengths[: layout.output_count].clamp(min=1).unsqueeze(1)
    return means.to(hidden.dtype)


POOLERS = {"cls": first_tokens, "mean": mean_tokens, "lasttoken": last_tokens}


class HeadAdapter:
    """A forward hook on the base model that lets an unchanged head read a packed row.

    During a pass over a packed row, the hidden states are replaced by one vector per sequence,
    shape (sequences, 1, hidden), and the base model's own pooler, if any, runs again on those.

    Attributes:
        cls_only: Whether the head reads only the first token of each sequence.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        pooling = getattr(model.config, "classifier_pooling", "cls")
        self._pool = POOLERS["mean" if pooling == "mean" else "cls"]
        self.cls_only = self._pool is first_tokens
        model.base_model.register_forward_hook(self._pool_output)

    def _pool_output(self, base: nn.Module, _arguments: Any, output: Any) -> Any:
        packed = current_pass()
        if packed is None:
            return output
        pooled = self._pool(output[0], packed.layout).unsqueeze(1)  # (sequences, 1, hidden)
        output["last_hidden_state"] = pooled
        pooler = getattr(base, "pooler", None)
        if pooler is not None and "pooler_output" in output:
            output["pooler_output"] = pooler(pooled)
        return output

"""What a model's own head needs from a packed row: one vector for each sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gpurerank.models.attention import current_reading
from gpurerank.models.packing import Layout


def first_tokens(hidden: Tensor, layout: Layout) -> Tensor:
    """First token of each sequence: (1, tokens, hidden) to (sequences, hidden)."""
    return hidden[0].index_select(0, layout.firsts)


def last_tokens(hidden: Tensor, layout: Layout) -> Tensor:
    """Last token of each sequence: (1, tokens, hidden) to (sequences, hidden)."""
    return hidden[0].index_select(0, layout.lasts)


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
    means = sums[: layout.count] / lengths[: layout.count].clamp(min=1).unsqueeze(1)
    return means.to(hidden.dtype)


POOLERS = {"cls": first_tokens, "mean": mean_tokens, "lasttoken": last_tokens}


class HeadAdapter:
    """A forward hook on the base model that lets an unchanged head read a packed row.

    While a thread is reading one, the packed hidden states are replaced by one vector a sequence,
    shape (sequences, 1, hidden), and the base model's own pooler, where it has one, runs again on
    those.

    Attributes:
        firsts_only: Whether the head reads the first token of each sequence alone.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        pooling = getattr(model.config, "classifier_pooling", "cls")
        self._pool = POOLERS["mean" if pooling == "mean" else "cls"]
        self.firsts_only = self._pool is first_tokens
        model.base_model.register_forward_hook(self._replace)

    def _replace(self, base: nn.Module, _arguments: Any, output: Any) -> Any:
        reading = current_reading()
        if reading is None:
            return output
        gathered = self._pool(output[0], reading.layout).unsqueeze(1)  # (sequences, 1, hidden)
        output["last_hidden_state"] = gathered
        pooler = getattr(base, "pooler", None)
        if pooler is not None and "pooler_output" in output:
            output["pooler_output"] = pooler(gathered)
        return output

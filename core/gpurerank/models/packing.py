"""Sequences of tokens as one packed row without padding, or as a padded block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from gpurerank.types import IntArray


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of one sequence, as the model reads them.

    Attributes:
        ids: Shape (tokens,), special tokens included.
        type_ids: Segment of each token, shape (tokens,).
        truncated: The text was longer than the model may read.
    """

    ids: IntArray
    type_ids: IntArray
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where sequences lie in a packed row.

    Attributes:
        cu_seqlens: Start of each sequence and the end of the last, shape (sequences + 1,), int32.
        runs: (length, count) of neighbours of equal length, in row order.
        longest: Tokens of the longest sequence.
    """

    cu_seqlens: Tensor
    runs: tuple[tuple[int, int], ...]
    longest: int


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A batch as one row of tokens; all tensors have shape (1, tokens)."""

    input_ids: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    layout: Layout


def pack(sequences: Sequence[Tokens], position_offset: int, device: torch.device) -> PackedRow:
    """Lays sequences end to end; positions restart at ``position_offset`` in each."""
    lengths = np.array([len(tokens) for tokens in sequences])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # One row of host memory and one copy: three small transfers cost more than their bytes.
    row = np.empty((3, int(ends[-1])), dtype=np.int64)
    np.concatenate([tokens.ids for tokens in sequences], out=row[0])
    np.concatenate([tokens.type_ids for tokens in sequences], out=row[1])
    row[2] = np.arange(ends[-1]) - np.repeat(starts, lengths) + position_offset
    moved = torch.from_numpy(row).to(device)
    bounds = np.concatenate(([0], ends)).astype(np.int32)
    layout = Layout(
        cu_seqlens=torch.from_numpy(bounds).to(device),
        runs=tuple((int(n), len(list(same))) for n, same in groupby(lengths)),
        longest=int(lengths.max()),
    )
    return PackedRow(moved[0:1], moved[1:2], moved[2:3], layout)


def pad(
    sequences: Sequence[Tokens], pad_id: int, device: torch.device, *, left: bool = False
) -> dict[str, Tensor]:
    """Lays sequences side by side, filled up to the longest.

    Returns:
        input_ids, token_type_ids and attention_mask, each of shape (sequences, longest).
    """
    longest = max(len(tokens) for tokens in sequences)
    block = np.zeros((3, len(sequences), longest), dtype=np.int64)
    block[0] = pad_id
    for row, tokens in enumerate(sequences):
        where = slice(longest - len(tokens), None) if left else slice(0, len(tokens))
        block[0, row, where] = tokens.ids
        block[1, row, where] = tokens.type_ids
        block[2, row, where] = 1
    moved = torch.from_numpy(block).to(device)
    return {"input_ids": moved[0], "token_type_ids": moved[1], "attention_mask": moved[2]}

"""Sequences of tokens as padded blocks, for models that packing would falsify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gpurerank.models.packing import Tokens
from gpurerank.types import IntArray

# A padded block may be this much larger than its tokens before it is split.
_PADDING_LIMIT = 1.15


@dataclass(frozen=True, slots=True)
class PaddedBlock:
    """Sequences side by side, filled up to the longest.

    Attributes:
        features: input_ids, token_type_ids and attention_mask, each (sequences, longest).
        order: Place in the batch of each sequence of the block, shape (sequences,).
    """

    features: dict[str, Tensor]
    order: IntArray

    @property
    def padding(self) -> int:
        """Tokens that only fill the block."""
        mask = self.features["attention_mask"]
        return mask.numel() - int(mask.sum())


def pad(sequences: Sequence[Tokens], pad_id: int, *, left: bool = False) -> PaddedBlock:
    """Lays sequences side by side, in their order."""
    longest = max(len(tokens) for tokens in sequences)
    block = np.zeros((3, len(sequences), longest), dtype=np.int64)
    block[0] = pad_id
    for row, tokens in enumerate(sequences):
        where = slice(longest - len(tokens), None) if left else slice(0, len(tokens))
        block[0, row, where] = tokens.ids
        block[1, row, where] = tokens.segment_ids
        block[2, row, where] = 1
    filled = torch.from_numpy(block)
    names = ("input_ids", "token_type_ids", "attention_mask")
    return PaddedBlock(dict(zip(names, filled, strict=True)), np.arange(len(sequences)))


def pad_alike(sequences: Sequence[Tokens], pad_id: int, *, left: bool = False) -> list[PaddedBlock]:
    """Lays sequences of similar length side by side, so that little of each block is padding."""
    blocks = []
    for group in similar_lengths([len(tokens) for tokens in sequences]):
        block = pad([sequences[place] for place in group], pad_id, left=left)
        blocks.append(replace(block, order=np.array(group)))
    return blocks


def similar_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Groups places, longest first, so that padding adds at most 15% to a group's tokens."""
    groups: list[list[int]] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        tokens += lengths[place]
        longest = lengths[groups[-1][0]] if groups else 0
        if not groups or longest * (len(groups[-1]) + 1) > _PADDING_LIMIT * tokens:
            groups.append([])
            tokens = lengths[place]
        groups[-1].append(place)
    return groups

"""Padded blocks of token sequences, for models whose scores packing would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gpurerank.models.packing import Tokens
from gpurerank.types import IntArray

# Size of a padded block relative to its tokens, above which it is split.
_PADDING_LIMIT = 1.15


@dataclass(frozen=True, slots=True)
class PaddedBlock:
    """Sequences padded to the length of the longest.

    Attributes:
        features: input_ids, token_type_ids and attention_mask, each (sequences, longest).
        order: Index in the batch of each sequence of the block, shape (sequences,).
    """

    features: dict[str, Tensor]
    order: IntArray

    @property
    def padding(self) -> int:
        """Padding tokens of the block."""
        mask = self.features["attention_mask"]
        return mask.numel() - int(mask.sum())


def pad(sequences: Sequence[Tokens], pad_id: int, *, left: bool = False) -> PaddedBlock:
    """Pads sequences to one block, in their order, on the right or on the left."""
    longest = max(len(tokens) for tokens in sequences)
    block = np.zeros((3, len(sequences), longest), dtype=np.int64)
    block[0] = pad_id
    for row, tokens in enumerate(sequences):
        columns = slice(longest - len(tokens), None) if left else slice(0, len(tokens))
        block[0, row, columns] = tokens.ids
        block[1, row, columns] = tokens.segment_ids
        block[2, row, columns] = 1
    tensors = torch.from_numpy(block)
    names = ("input_ids", "token_type_ids", "attention_mask")
    return PaddedBlock(dict(zip(names, tensors, strict=True)), np.arange(len(sequences)))


def pad_by_length(
    sequences: Sequence[Tokens], pad_id: int, *, left: bool = False
) -> list[PaddedBlock]:
    """Pads sequences of similar length together, so that little of each block is padding."""
    blocks = []
    for indices in group_by_length([len(tokens) for tokens in sequences]):
        block = pad([sequences[index] for index in indices], pad_id, left=left)
        blocks.append(replace(block, order=np.array(indices)))
    return blocks


def group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Groups indices, longest first, so that padding adds at most 15% to a group's tokens."""
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        tokens += lengths[index]
        longest = lengths[groups[-1][0]] if groups else 0
        if not groups or longest * (len(groups[-1]) + 1) > _PADDING_LIMIT * tokens:
            groups.append([])
            tokens = lengths[index]
        groups[-1].append(index)
    return groups

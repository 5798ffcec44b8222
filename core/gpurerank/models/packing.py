"""Sequences of tokens as one packed row without padding, or as padded blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from gpurerank.types import IntArray

# A padded block may be this much larger than its tokens before it is split.
_PADDING_LIMIT = 1.15


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of one sequence, as the model reads them, in parts that are not copied.

    Attributes:
        parts: Runs of token ids; together the sequence, special tokens included.
        segments: Segment id of each part, as many as parts.
        length: Tokens in all.
        truncated: The text was longer than the model may read.
    """

    parts: tuple[IntArray, ...]
    segments: tuple[int, ...]
    length: int
    truncated: bool

    @classmethod
    def of(cls, ids: IntArray, segments: IntArray, *, truncated: bool = False) -> Tokens:
        """From ids and segment ids, each of shape (tokens,)."""
        changes = np.flatnonzero(np.diff(segments)) + 1
        starts = [0, *changes.tolist()] if len(ids) else []
        return cls(
            tuple(np.split(ids, changes)), tuple(segments[starts].tolist()), len(ids), truncated
        )

    def __len__(self) -> int:
        return self.length

    @property
    def ids(self) -> IntArray:
        """Shape (tokens,), special tokens included."""
        return np.concatenate(self.parts).astype(np.int64)

    @property
    def segment_ids(self) -> IntArray:
        """Segment of each token, shape (tokens,)."""
        return np.repeat(np.array(self.segments), [len(part) for part in self.parts])


_NOTHING = Tokens((np.zeros(1, np.int32),), (0,), 1, False)


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in a packed row.

    Attributes:
        cu_seqlens: Start of each sequence and the end of the last, shape (sequences + 1,), int32;
            sequences at the end may be empty.
        tokens: Tokens of the row.
        longest: Tokens of the longest sequence, or more.
        count: Sequences that somebody asked for; those after them only fill the row.
    """

    cu_seqlens: Tensor
    tokens: int
    longest: int
    count: int

    @cached_property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """(length, count) of neighbours of equal length, in row order."""
        lengths = self.cu_seqlens.diff().tolist()
        return tuple((n, len(list(same))) for n, same in groupby(lengths) if n)

    @cached_property
    def starts(self) -> Tensor:
        """Place of each sequence's first token, shape (sequences,)."""
        # An empty sequence at the end begins behind the row.
        return self.cu_seqlens[:-1].long().clamp_(max=self.tokens - 1)

    @property
    def firsts(self) -> Tensor:
        """Place of the first token of each sequence that somebody asked for, shape (count,)."""
        return self.starts[: self.count]

    @cached_property
    def of_firsts(self) -> Layout:
        """The layout of what ``starts`` selects: as many sequences, each of one token."""
        sequences = len(self.cu_seqlens) - 1
        bounds = torch.arange(sequences + 1, dtype=torch.int32, device=self.cu_seqlens.device)
        return Layout(bounds, sequences, 1, self.count)

    @cached_property
    def lasts(self) -> Tensor:
        """Place of each sequence's last token, shape (count,)."""
        return self.cu_seqlens[1 : self.count + 1].long().sub_(1).clamp_(min=0)


@dataclass(frozen=True)
class PackedRow:
    """A batch as one row of tokens.

    Attributes:
        row: Token ids, segment ids and positions, shape (3, tokens), int64.
        layout: Where the sequences lie.
        order: Place in the batch of each sequence of the row, shape (count,).
    """

    row: Tensor
    layout: Layout
    order: IntArray

    @property
    def width(self) -> int:
        """Tokens that run, what fills the row up included."""
        return self.row.shape[1]

    @property
    def input_ids(self) -> Tensor:
        """Shape (1, tokens)."""
        return self.row[0:1]

    @property
    def segment_ids(self) -> Tensor:
        """Shape (1, tokens)."""
        return self.row[1:2]

    @property
    def position_ids(self) -> Tensor:
        """Shape (1, tokens)."""
        return self.row[2:3]

    def to(self, device: torch.device) -> PackedRow:
        """The same on a device; from pinned memory the copy does not wait."""
        if self.row.device == device:
            return self
        bounds = self.layout.cu_seqlens.to(device, non_blocking=True)
        layout = replace(self.layout, cu_seqlens=bounds)
        return PackedRow(self.row.to(device, non_blocking=True), layout, self.order)


def pack(
    sequences: Sequence[Tokens],
    position_offset: int,
    *,
    width: Callable[[int], int] = int,
    pinned: bool = False,
) -> PackedRow:
    """Lays sequences end to end, shortest first; positions restart in each.

    Args:
        sequences: A batch.
        position_offset: First position of a sequence.
        width: Tokens that the row shall have, given those of the batch: never fewer. The rest is
            filled with sequences of token 0, no longer than the batch's longest.
        pinned: Whether the row lies in page-locked memory, for copies that do not wait.
    """
    # A sequence of nothing still has an output.
    sequences = [tokens if tokens.length else _NOTHING for tokens in sequences]
    lengths = np.array([tokens.length for tokens in sequences])
    order = np.argsort(lengths, kind="stable")
    lengths, longest, total = lengths[order], int(lengths.max()), int(lengths.sum())
    spare = width(total) - total
    fillers = [longest] * (spare // longest) + [spare % longest] * (spare % longest > 0)
    lengths = np.concatenate((lengths, np.array(fillers, dtype=lengths.dtype)))
    bounds = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=bounds[1:])
    # One row of host memory and one copy: three small transfers cost more than their bytes.
    row = torch.empty((3, total + spare), dtype=torch.int64, pin_memory=pinned)
    ids, segments, positions = row.numpy()
    parts = [part for place in order for part in sequences[place].parts]
    np.concatenate(parts, out=ids[:total], casting="same_kind")
    of_parts = np.array([segment for place in order for segment in sequences[place].segments])
    segments[:total] = np.repeat(of_parts, [len(part) for part in parts])
    ids[total:] = 0
    segments[total:] = 0
    positions[:] = np.arange(total + spare)
    positions -= np.repeat(bounds[:-1] - position_offset, lengths)
    cu_seqlens = torch.from_numpy(bounds)
    if pinned:
        cu_seqlens = cu_seqlens.pin_memory()
    return PackedRow(row, Layout(cu_seqlens, total + spare, longest, len(sequences)), order)


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
    def width(self) -> int:
        """Tokens that run, padding included."""
        return self.features["input_ids"].numel()


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

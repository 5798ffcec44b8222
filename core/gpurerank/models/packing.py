"""Sequences of tokens as one packed row without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor

from gpurerank.types import IntArray


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

    def cut(self, start: int, stop: int) -> Tokens:
        """Those tokens alone, not copied."""
        parts, segments, at = [], [], 0
        for part, segment in zip(self.parts, self.segments, strict=True):
            piece = part[max(start - at, 0) : max(stop - at, 0)]
            at += len(part)
            if len(piece):
                parts.append(piece)
                segments.append(segment)
        return Tokens(tuple(parts), tuple(segments), sum(map(len, parts)), self.truncated)


_NOTHING = Tokens((np.zeros(1, np.int32),), (0,), 1, False)


@dataclass(frozen=True, slots=True)
class Prefix:
    """What several sequences of a batch begin with, laid out once for all of them.

    Attributes:
        members: Places in the batch.
        length: Tokens; fewer than each member has.
    """

    members: tuple[int, ...]
    length: int


@dataclass(frozen=True, slots=True)
class Keys:
    """What the sequences of a row attend to, where that is more than themselves.

    Attributes:
        places: Places among keys and values, sequence by sequence, shape (keys,) or more, int64;
            what a sequence has itself comes last. None where keys and values lie in order.
        bounds: Start of each sequence's keys and the end of the last's, shape (sequences + 1,),
            int32.
        longest: The most keys that a sequence has.
    """

    places: Tensor | None
    bounds: Tensor
    longest: int

    def to(self, device: torch.device) -> Keys:
        """The same on a device; from pinned memory the copy does not wait."""
        places = None if self.places is None else self.places.to(device, non_blocking=True)
        return Keys(places, self.bounds.to(device, non_blocking=True), self.longest)


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in a packed row.

    Attributes:
        cu_seqlens: Start of each sequence and the end of the last, shape (sequences + 1,), int32;
            sequences at the end may be empty.
        tokens: Tokens of the row.
        longest: Tokens of the longest sequence, or more.
        count: Sequences that somebody asked for; those after them are prefixes, or fill the row.
        keys: What each sequence attends to, where that is more than itself.
    """

    cu_seqlens: Tensor
    tokens: int
    longest: int
    count: int
    keys: Keys | None = None

    @cached_property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """(tokens, keys, count) of neighbours of equal size, in row order."""
        lengths = self.cu_seqlens.diff().tolist()
        keys = lengths if self.keys is None else self.keys.bounds.diff().tolist()
        alike = groupby(zip(lengths, keys, strict=True))
        return tuple((*sizes, len(list(same))) for sizes, same in alike if all(sizes))

    @cached_property
    def starts(self) -> Tensor:
        """Place of the first token that each sequence has here, shape (sequences,)."""
        # An empty sequence at the end begins behind the row.
        return self.cu_seqlens[:-1].long().clamp_(max=self.tokens - 1)

    @property
    def firsts(self) -> Tensor:
        """Place of the first token of each sequence that somebody asked for, shape (count,)."""
        return self.starts[: self.count]

    @cached_property
    def of_firsts(self) -> Layout:
        """The layout of what ``starts`` selects: a token of each sequence, attending to it all."""
        sequences = len(self.cu_seqlens) - 1
        bounds = torch.arange(sequences + 1, dtype=torch.int32, device=self.cu_seqlens.device)
        return Layout(bounds, sequences, 1, self.count, Keys(None, self.cu_seqlens, self.longest))

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
        padding: Tokens that only fill the row.
    """

    row: Tensor
    layout: Layout
    order: IntArray
    padding: int = 0

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
        layout, keys = self.layout, self.layout.keys
        layout = replace(
            layout,
            cu_seqlens=layout.cu_seqlens.to(device, non_blocking=True),
            keys=None if keys is None else keys.to(device),
        )
        return replace(self, row=self.row.to(device, non_blocking=True), layout=layout)


def pack(
    sequences: Sequence[Tokens],
    position_offset: int,
    *,
    width: Callable[[int], int] = int,
    pinned: bool = False,
    prefixes: Sequence[Prefix] = (),
) -> PackedRow:
    """Lays sequences end to end, the shortest first; positions restart in each.

    Args:
        sequences: A batch.
        position_offset: First position of a sequence.
        width: Tokens that the row shall have, given those of the batch: never fewer. The rest is
            filled with sequences of token 0, no longer than the batch's longest.
        pinned: Whether the row lies in page-locked memory, for copies that do not wait.
        prefixes: Laid out once, behind the rest of what has them; for a causal model, in which what
            follows a token has no part in it. No sequence has two.
    """
    # A sequence of nothing still has an output.
    sequences = [tokens if tokens.length else _NOTHING for tokens in sequences]
    begins = np.zeros(len(sequences), dtype=np.int64)
    for prefix in prefixes:
        begins[list(prefix.members)] = prefix.length
    rests = [
        tokens.cut(begin, tokens.length) if begin else tokens
        for tokens, begin in zip(sequences, begins.tolist(), strict=True)
    ]
    order = np.lexsort(np.array([begins, [tokens.length for tokens in rests]]))
    laid = [rests[place] for place in order]
    laid += [sequences[prefix.members[0]].cut(0, prefix.length) for prefix in prefixes]
    lengths = [tokens.length for tokens in laid]
    longest, total = max(lengths), sum(lengths)
    spare = width(total) - total
    lengths += [longest] * (spare // longest) + [spare % longest] * (spare % longest > 0)
    bounds = _bounds(lengths)
    begins = np.concatenate((begins[order], np.zeros(len(lengths) - len(order), dtype=np.int64)))
    row = _written(laid, bounds, begins + position_offset, pinned)
    keys = _keys(prefixes, order, bounds, width, pinned) if prefixes else None
    layout = Layout(_on_host(bounds, pinned), total + spare, longest, len(sequences), keys)
    return PackedRow(row, layout, order, spare)


def _written(laid: Sequence[Tokens], bounds: IntArray, begins: IntArray, pinned: bool) -> Tensor:
    """Token ids, segment ids and positions, which begin as given; what fills the row is 0."""
    total, end = sum(tokens.length for tokens in laid), int(bounds[-1])
    # One row of host memory and one copy: three small transfers cost more than their bytes.
    row = torch.empty((3, end), dtype=torch.int64, pin_memory=pinned)
    ids, segments, positions = row.numpy()
    parts = [part for tokens in laid for part in tokens.parts]
    np.concatenate(parts, out=ids[:total], casting="same_kind")
    of_parts = np.array([segment for tokens in laid for segment in tokens.segments])
    segments[:total] = np.repeat(of_parts, [len(part) for part in parts])
    ids[total:] = 0
    segments[total:] = 0
    positions[:] = np.arange(end)
    positions -= np.repeat(bounds[:-1] - begins, np.diff(bounds))
    return row


def _bounds(lengths: Sequence[int]) -> IntArray:
    """Start of each and the end of the last, shape (lengths + 1,), int32."""
    bounds = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=bounds[1:])
    return bounds


def _on_host(array: IntArray, pinned: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if pinned else tensor


def _keys(
    prefixes: Sequence[Prefix],
    order: IntArray,
    bounds: IntArray,
    width: Callable[[int], int],
    pinned: bool,
) -> Keys:
    """Keys of a row whose prefixes lie behind ``order``; filled up to what ``width`` says."""
    own = [np.arange(start, stop) for start, stop in pairwise(bounds.tolist())]
    of_member = {
        member: own[len(order) + number]
        for number, prefix in enumerate(prefixes)
        for member in prefix.members
    }
    keys = list(own)
    for number, place in enumerate(order.tolist()):
        if place in of_member:
            keys[number] = np.concatenate((of_member[place], own[number]))
    counts = [len(places) for places in keys]
    # What lies behind the bounds nobody attends to.
    places = np.zeros(width(sum(counts)), dtype=np.int64)
    np.concatenate(keys, out=places[: sum(counts)])
    return Keys(_on_host(places, pinned), _on_host(_bounds(counts), pinned), max(counts))

"""A batch of token sequences as one packed row without padding."""

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
    """The token ids of one sequence, as the model reads them.

    Kept in parts, so that the tokens of a query that many pairs share are not copied.

    Attributes:
        parts: Token ids, each of shape (tokens in the part,); special tokens included.
        segments: Segment id of each part.
        length: Tokens of all parts.
        truncated: Whether the text was longer than the model may read.
    """

    parts: tuple[IntArray, ...]
    segments: tuple[int, ...]
    length: int
    truncated: bool

    @classmethod
    def from_arrays(cls, ids: IntArray, segments: IntArray, *, truncated: bool = False) -> Tokens:
        """Splits ids where the segment changes; both of shape (tokens,)."""
        changes = np.flatnonzero(np.diff(segments)) + 1
        starts = [0, *changes.tolist()] if len(ids) else []
        return cls(
            tuple(np.split(ids, changes)), tuple(segments[starts].tolist()), len(ids), truncated
        )

    def __len__(self) -> int:
        return self.length

    @property
    def ids(self) -> IntArray:
        """Token ids, shape (tokens,), int64."""
        return np.concatenate(self.parts).astype(np.int64)

    @property
    def segment_ids(self) -> IntArray:
        """Segment id of each token, shape (tokens,)."""
        return np.repeat(np.array(self.segments), [len(part) for part in self.parts])

    def slice(self, start: int, stop: int) -> Tokens:
        """Tokens [start, stop), as views of the same arrays."""
        parts, segments, offset = [], [], 0
        for part, segment in zip(self.parts, self.segments, strict=True):
            piece = part[max(start - offset, 0) : max(stop - offset, 0)]
            offset += len(part)
            if len(piece):
                parts.append(piece)
                segments.append(segment)
        return Tokens(tuple(parts), tuple(segments), sum(map(len, parts)), self.truncated)


# A sequence without tokens still has an output, so it is read as token 0.
_EMPTY = Tokens((np.zeros(1, np.int32),), (0,), 1, False)


@dataclass(frozen=True, slots=True)
class Prefix:
    """A common prefix of several sequences of a batch, computed once for all of them.

    Attributes:
        members: Indices of the sequences in the batch.
        length: Tokens of the prefix, fewer than each member has.
    """

    members: tuple[int, ...]
    length: int


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """Keys and values of the sequences of a row, where they are more than the queries.

    Attributes:
        indices: Positions in the row of the keys of each sequence, its own tokens last, shape
            (keys,) or longer, int64; None where keys already lie in order.
        cu_seqlens: Start of each sequence's keys and the end of the last, shape (sequences + 1,),
            int32.
        max_seqlen: The most keys of a sequence.
    """

    indices: Tensor | None
    cu_seqlens: Tensor
    max_seqlen: int

    def to(self, device: torch.device) -> KeyLayout:
        """The same on a device; from pinned memory the copy is asynchronous."""
        indices = None if self.indices is None else self.indices.to(device, non_blocking=True)
        cu_seqlens = self.cu_seqlens.to(device, non_blocking=True)
        return KeyLayout(indices, cu_seqlens, self.max_seqlen)


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in a packed row.

    Attributes:
        cu_seqlens: Start of each sequence and the end of the last, shape (sequences + 1,), int32;
            sequences at the end may be empty.
        tokens: Tokens of the row.
        max_seqlen: Tokens of the longest sequence, or more.
        output_count: Sequences whose output is needed, which come first; the others are shared
            prefixes or fill the row.
        keys: Keys of each sequence, where they are more than its own tokens.
    """

    cu_seqlens: Tensor
    tokens: int
    max_seqlen: int
    output_count: int
    keys: KeyLayout | None = None

    @cached_property
    def equal_lengths(self) -> tuple[tuple[int, int, int], ...]:
        """(tokens, keys, count) of neighbouring sequences of equal size, in row order."""
        lengths = self.cu_seqlens.diff().tolist()
        key_lengths = lengths if self.keys is None else self.keys.cu_seqlens.diff().tolist()
        groups = groupby(zip(lengths, key_lengths, strict=True))
        return tuple((*sizes, len(list(group))) for sizes, group in groups if all(sizes))

    @cached_property
    def first_indices(self) -> Tensor:
        """Position of the first token of every sequence, shape (sequences,), int64."""
        # An empty sequence at the end starts behind the row.
        return self.cu_seqlens[:-1].long().clamp_(max=self.tokens - 1)

    @property
    def cls_indices(self) -> Tensor:
        """Position of the first token of each output sequence, shape (output_count,), int64."""
        return self.first_indices[: self.output_count]

    @cached_property
    def last_indices(self) -> Tensor:
        """Position of the last token of each output sequence, shape (output_count,), int64."""
        return self.cu_seqlens[1 : self.output_count + 1].long().sub_(1).clamp_(min=0)

    @cached_property
    def cls_layout(self) -> Layout:
        """The layout of first tokens alone, each attending to the whole of its sequence."""
        sequences = len(self.cu_seqlens) - 1
        cu_seqlens = torch.arange(sequences + 1, dtype=torch.int32, device=self.cu_seqlens.device)
        keys = KeyLayout(None, self.cu_seqlens, self.max_seqlen)
        return Layout(cu_seqlens, sequences, 1, self.output_count, keys)


@dataclass(frozen=True)
class PackedRow:
    """A batch as one row of tokens.

    Attributes:
        inputs: Token ids, segment ids and positions, shape (3, tokens), int64.
        layout: Where the sequences lie.
        order: Index in the batch of each output sequence of the row, shape (output_count,).
        padding: Tokens that only fill the row.
    """

    inputs: Tensor
    layout: Layout
    order: IntArray
    padding: int = 0

    @property
    def input_ids(self) -> Tensor:
        """Shape (1, tokens)."""
        return self.inputs[0:1]

    @property
    def segment_ids(self) -> Tensor:
        """Shape (1, tokens)."""
        return self.inputs[1:2]

    @property
    def position_ids(self) -> Tensor:
        """Shape (1, tokens)."""
        return self.inputs[2:3]

    def to(self, device: torch.device) -> PackedRow:
        """The same on a device; from pinned memory the copy is asynchronous."""
        if self.inputs.device == device:
            return self
        layout, keys = self.layout, self.layout.keys
        layout = replace(
            layout,
            cu_seqlens=layout.cu_seqlens.to(device, non_blocking=True),
            keys=None if keys is None else keys.to(device),
        )
        return replace(self, inputs=self.inputs.to(device, non_blocking=True), layout=layout)


def pack(
    sequences: Sequence[Tokens],
    position_offset: int,
    *,
    width: Callable[[int], int] = int,
    pinned: bool = False,
    prefixes: Sequence[Prefix] = (),
) -> PackedRow:
    """Concatenates sequences, the shortest first; positions restart in each.

    Args:
        sequences: A batch.
        position_offset: First position id of a sequence.
        width: From the tokens of the batch to those of the row, never fewer. The rest is filled
            with sequences of token 0 that are no longer than the longest of the batch.
        pinned: Whether the row lies in page-locked memory, for asynchronous copies.
        prefixes: Common prefixes, each stored once behind the rest of its members. Only for causal
            models, whose prefix does not depend on what follows. A sequence has at most one.
    """
    sequences = [tokens if tokens.length else _EMPTY for tokens in sequences]
    prefix_lengths = np.zeros(len(sequences), dtype=np.int64)
    for prefix in prefixes:
        prefix_lengths[list(prefix.members)] = prefix.length
    suffixes = [
        tokens.slice(length, tokens.length) if length else tokens
        for tokens, length in zip(sequences, prefix_lengths.tolist(), strict=True)
    ]
    # By length, then by prefix length, so that attention on a CPU finds neighbours of equal size.
    order = np.lexsort(np.array([prefix_lengths, [tokens.length for tokens in suffixes]]))
    stored = [suffixes[index] for index in order]
    stored += [sequences[prefix.members[0]].slice(0, prefix.length) for prefix in prefixes]
    lengths = [tokens.length for tokens in stored]
    longest, total = max(lengths), sum(lengths)
    spare = width(total) - total
    lengths += [longest] * (spare // longest) + [spare % longest] * (spare % longest > 0)
    cu_seqlens = _cumulative(lengths)
    first_positions = np.zeros(len(lengths), dtype=np.int64)
    first_positions[: len(order)] = prefix_lengths[order]
    inputs = _input_tensor(stored, cu_seqlens, first_positions + position_offset, pinned)
    keys = _key_layout(prefixes, order, cu_seqlens, width, pinned) if prefixes else None
    layout = Layout(_host_tensor(cu_seqlens, pinned), total + spare, longest, len(sequences), keys)
    return PackedRow(inputs, layout, order, spare)


def _input_tensor(
    stored: Sequence[Tokens], cu_seqlens: IntArray, first_positions: IntArray, pinned: bool
) -> Tensor:
    """Token ids, segment ids and positions, shape (3, tokens); ids that fill the row are 0."""
    total, end = sum(tokens.length for tokens in stored), int(cu_seqlens[-1])
    # One block of host memory and one copy: three small transfers cost more than their bytes. The
    # device is named because the process may have another default device.
    inputs = torch.empty((3, end), dtype=torch.int64, device="cpu", pin_memory=pinned)
    ids, segments, positions = inputs.numpy()
    parts = [part for tokens in stored for part in tokens.parts]
    np.concatenate(parts, out=ids[:total], casting="same_kind")
    part_segments = np.array([segment for tokens in stored for segment in tokens.segments])
    segments[:total] = np.repeat(part_segments, [len(part) for part in parts])
    ids[total:] = 0
    segments[total:] = 0
    positions[:] = np.arange(end)
    positions -= np.repeat(cu_seqlens[:-1] - first_positions, np.diff(cu_seqlens))
    return inputs


def _cumulative(lengths: Sequence[int]) -> IntArray:
    """Start of each sequence and the end of the last, shape (lengths + 1,), int32."""
    cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    return cu_seqlens


def _host_tensor(array: IntArray, pinned: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if pinned else tensor


def _key_layout(
    prefixes: Sequence[Prefix],
    order: IntArray,
    cu_seqlens: IntArray,
    width: Callable[[int], int],
    pinned: bool,
) -> KeyLayout:
    """Keys of a row whose prefixes are stored behind ``order``, filled up to ``width``."""
    token_indices = [np.arange(start, stop) for start, stop in pairwise(cu_seqlens.tolist())]
    prefix_of = {
        member: token_indices[len(order) + number]
        for number, prefix in enumerate(prefixes)
        for member in prefix.members
    }
    keys = list(token_indices)
    for number, member in enumerate(order.tolist()):
        if member in prefix_of:
            keys[number] = np.concatenate((prefix_of[member], token_indices[number]))
    counts = [len(indices) for indices in keys]
    # Nothing attends to the keys behind the last bound.
    indices = np.zeros(width(sum(counts)), dtype=np.int64)
    np.concatenate(keys, out=indices[: sum(counts)])
    key_cu_seqlens = _host_tensor(_cumulative(counts), pinned)
    return KeyLayout(_host_tensor(indices, pinned), key_cu_seqlens, max(counts))

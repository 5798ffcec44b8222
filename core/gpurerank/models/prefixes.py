"""Common prefixes of the pairs of one query, which a causal model can compute once per batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gpurerank.models.packing import Prefix, Tokens

# Collecting the keys of a shorter prefix costs as much as sharing it saves.
MIN_SHARED_TOKENS = 16


def common_prefixes(
    pairs: Sequence[tuple[str, str]],
    sequences: Sequence[Tokens],
    *,
    min_tokens: int = MIN_SHARED_TOKENS,
) -> list[Prefix]:
    """Finds the common prefix of each query with two pairs or more.

    Args:
        pairs: Query and passage of each pair.
        sequences: Tokens of each pair. At least one token of each stays outside the prefix.
        min_tokens: Tokens that a prefix must have.
    """
    indices_by_query: dict[str, list[int]] = defaultdict(list)
    for index, (query, _) in enumerate(pairs):
        indices_by_query[query].append(index)
    prefixes = []
    for indices in indices_by_query.values():
        if len(indices) > 1:
            length = _common_length([sequences[index] for index in indices])
            if length >= min_tokens:
                prefixes.append(Prefix(tuple(indices), length))
    return prefixes


def _common_length(sequences: Sequence[Tokens]) -> int:
    """Tokens that all sequences start with, without the last token of the shortest."""
    length = max(0, min(len(tokens) for tokens in sequences) - 1)
    ids = np.stack([tokens.ids[:length] for tokens in sequences])
    differences = np.flatnonzero((ids != ids[0]).any(axis=0))
    return int(differences[0]) if len(differences) else length

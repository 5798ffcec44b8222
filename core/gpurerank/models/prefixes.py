"""What the sequences of one query begin with alike: a causal model need read it only once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from gpurerank.models.packing import Prefix, Tokens

# Below this, finding what a sequence attends to costs what it saves.
WORTH_SHARING = 16


def common_prefixes(
    pairs: Sequence[tuple[str, str]], sequences: Sequence[Tokens], *, worth: int = WORTH_SHARING
) -> list[Prefix]:
    """Prefixes of two and more sequences, for each query at most one.

    Args:
        pairs: Query and passage.
        sequences: The tokens of each pair. Each keeps one token of its own at least.
        worth: Tokens that a prefix has at least.
    """
    of_query: dict[str, list[int]] = defaultdict(list)
    for place, (query, _) in enumerate(pairs):
        of_query[query].append(place)
    found = []
    for places in of_query.values():
        length = _alike([sequences[place] for place in places]) if len(places) > 1 else 0
        if length >= worth:
            found.append(Prefix(tuple(places), length))
    return found


def _alike(sequences: Sequence[Tokens]) -> int:
    """Tokens that all begin with, but for the last of the shortest."""
    length = max(0, min(len(tokens) for tokens in sequences) - 1)
    ids = np.stack([tokens.ids[:length] for tokens in sequences])
    differing = np.flatnonzero((ids != ids[0]).any(axis=0))
    return int(differing[0]) if len(differing) else length

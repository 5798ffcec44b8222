"""How long contenders take, from strings to a ranking."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpurerank.evaluation.queries import JudgedQuery
from gpurerank.types import Ranker, TextEmbedder

ROUNDS = 20
FEWEST_ROUNDS = 3
WARM_UPS = 2
# A slow contender gets fewer rounds, so that a run on two cores stays a matter of minutes.
LIMIT_S = 4.0


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender at one depth: every round, in milliseconds, in the order they ran."""

    times_ms: list[float]

    @property
    def p50_ms(self) -> float:
        """The middle of all rounds."""
        return statistics.median(self.times_ms)

    @property
    def p95_ms(self) -> float | None:
        """The 95th percentile; None under 20 rounds, which cannot tell it."""
        if len(self.times_ms) < ROUNDS:
            return None
        return float(np.percentile(self.times_ms, 95))


class Requests:
    """Queries with their candidates, every text as if it had never been seen.

    The models remember texts that come again, their tokens and their vectors. Spaces at the end,
    one more each time that a text is taken, make it new and mean nothing to a model.

    Args:
        queries: Where the texts come from.
        seed: Of the order.
    """

    def __init__(self, queries: Sequence[JudgedQuery], seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(queries)).tolist()
        self._queries = [queries[row] for row in order]
        self._asked = 0
        self._taken: Counter[str] = Counter()

    def next(self, depth: int) -> tuple[str, list[str]]:
        """A query and its first candidates; those queries first that have enough of them."""
        full = [q for q in self._queries if len(q.candidates) >= depth]
        pool = full or self._queries
        query = pool[self._asked % len(pool)]
        self._asked += 1
        return self._anew(query.text), [self._anew(c.text) for c in query.candidates[:depth]]

    def _anew(self, text: str) -> str:
        self._taken[text] += 1
        return text + " " * self._taken[text]


def measure_latency(
    ranker: Ranker,
    requests: Requests,
    depth: int,
    *,
    ahead: Sequence[TextEmbedder] = (),
) -> Timing:
    """Times a ranker, one call after another; the first calls warm it up and do not count.

    Args:
        ranker: What is timed.
        requests: What it is asked.
        depth: Candidates of each request.
        ahead: What embeds the passages before the clock starts, as an index would have done.
    """
    started = time.perf_counter()
    for _ in range(WARM_UPS):
        _timed(ranker, requests, depth, ahead)
        if time.perf_counter() - started > LIMIT_S / 4:
            break
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < ROUNDS:
        if len(times) >= FEWEST_ROUNDS and time.perf_counter() - started > LIMIT_S:
            break
        times.append(_timed(ranker, requests, depth, ahead))
    return Timing(times)


def _timed(ranker: Ranker, requests: Requests, depth: int, ahead: Sequence[TextEmbedder]) -> float:
    query, passages = requests.next(depth)
    for embedder in ahead:
        embedder.embed_passages(passages)
    called = time.perf_counter()
    ranker.rank(query, passages)
    return (time.perf_counter() - called) * 1000.0

"""Rankings of every query by every contender at every depth, and what they are worth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpurerank.evaluation.contenders import Contender, build
from gpurerank.evaluation.known import Say, UnknownScoreError
from gpurerank.evaluation.measures import Evaluator, Values, distinct, perfect
from gpurerank.evaluation.queries import Candidate, JudgedQuery
from gpurerank.evaluation.stages import Stages
from gpurerank.types import Ranker

# Pairs scored in one stream at first: an interruption loses no more. Fast devices get longer ones.
PAIRS_AT_FIRST = 640
SHORT_S = 3.0
KEPT = 10

Key = tuple[str, int]  # contender and depth


@dataclass(slots=True)
class Judged:
    """What the rankings were worth so far.

    Attributes:
        queries: Those that are finished, in the order in which they were judged.
        first: Of the first stage's own order.
        ceiling: Of the best order that the candidates can have, by depth.
        values: By contender and depth.
        tops: The first passages of each ranking, a list a query, by contender and depth.
        search_ms: How long a pipeline took for each query, by contender.
    """

    queries: list[JudgedQuery] = field(default_factory=list)
    first: Values = field(default_factory=dict)
    ceiling: dict[int, Values] = field(default_factory=dict)
    values: dict[Key, Values] = field(default_factory=dict)
    tops: dict[Key, list[list[Candidate]]] = field(default_factory=dict)
    search_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(
        self,
        queries: list[JudgedQuery],
        first: Values,
        ceiling: dict[int, Values],
        values: dict[Key, Values],
        tops: dict[Key, list[list[Candidate]]],
        search_ms: dict[str, list[float]],
    ) -> None:
        """Adds queries of which everything is known."""
        self.queries += queries
        _extend(self.first, first)
        for depth, best in ceiling.items():
            _extend(self.ceiling.setdefault(depth, {}), best)
        for key, found in values.items():
            _extend(self.values.setdefault(key, {}), found)
            self.tops.setdefault(key, []).extend(ranked[:KEPT] for ranked in tops[key])
        _extend(self.search_ms, search_ms)


class Judge:
    """Ranks and measures, some queries at a time, so that an interrupted run keeps the finished.

    Every pair is scored once and every passage embedded once; all depths, cascades and fusions are
    made from that by the same classes as in production. A query whose candidates hold no relevant
    passage is not scored at all: every order of them is worth 0.

    Args:
        contenders: What ranks.
        stages: Their models.
        depth: At which the first stage is judged, and pipelines.
        depths: At which contenders are judged.
    """

    def __init__(
        self, contenders: Sequence[Contender], stages: Stages, depth: int, depths: Sequence[int]
    ) -> None:
        self._stages = stages
        self._depth = depth
        self._depths = tuple(depths)
        self._rankers: dict[str, Ranker] = {}
        self._pipelines = []
        for contender in contenders:
            if contender.plan is not None:
                self._rankers[contender.name] = build(contender.plan, stages.known)
            elif isinstance(contender.subject, Ranker):
                self._rankers[contender.name] = contender.subject
            else:
                self._pipelines.append(contender)
        self.judged = Judged()

    def judge(self, queries: Sequence[JudgedQuery], seed: int, say: Say) -> None:
        """Judges queries in random order; ``judged`` grows with every step."""
        order = np.random.default_rng(seed).permutation(len(queries)).tolist()
        size, start = max(1, PAIRS_AT_FIRST // max(self._depths)), 0
        while start < len(queries):
            some = [queries[row] for row in order[start : start + size]]
            say("queries", start, len(queries))
            started = time.perf_counter()
            self._step(some, say)
            if time.perf_counter() - started < SHORT_S:
                size *= 2
            start += len(some)
        say("queries", len(queries), len(queries))

    def _step(self, queries: list[JudgedQuery], say: Say) -> None:
        """Judges some queries, and adds them when all is known of them."""
        evaluator = Evaluator(queries, sorted({self._depth, *self._depths}))
        tops = {
            (name, depth): [list(q.candidates[:depth]) for q in queries]
            for name in self._rankers
            for depth in self._depths
        }
        for key, row, ranked in self._ranked(queries, say):
            tops[key][row] = ranked
        values = {key: _measure(evaluator, ranked, key[1]) for key, ranked in tops.items()}
        search_ms: dict[str, list[float]] = {}
        for pipeline in self._pipelines:
            key = (pipeline.name, self._depth)
            tops[key], search_ms[pipeline.name] = self._searched(pipeline, queries)
            values[key] = _measure(evaluator, tops[key], self._depth)
        first = _measure(evaluator, [list(q.candidates) for q in queries], self._depth)
        ceiling = {
            depth: evaluator.measure([perfect(query, depth) for query in queries], depth)
            for depth in self._depths
        }
        self._stages.forget()
        self.judged.add(queries, first, ceiling, values, tops, search_ms)

    def _ranked(
        self, queries: Sequence[JudgedQuery], say: Say
    ) -> Iterator[tuple[Key, int, list[Candidate]]]:
        """Every ranking of the queries that it can help, with the query's place."""
        pending = [
            (name, depth, row)
            for row, query in enumerate(queries)
            if query.reachable(max(self._depths))
            for name in self._rankers
            for depth in self._depths
        ]
        while pending:
            unknown = []
            for name, depth, row in pending:
                listed = queries[row].candidates[:depth]
                texts = [candidate.text for candidate in listed]
                try:
                    ranked = self._rankers[name].rank(queries[row].text, texts)
                except UnknownScoreError:
                    unknown.append((name, depth, row))
                    continue
                yield (name, depth), row, [listed[passage.index] for passage in ranked]
            self._stages.learn(say)
            pending = unknown

    def _searched(
        self, pipeline: Contender, queries: Sequence[JudgedQuery]
    ) -> tuple[list[list[Candidate]], list[float]]:
        found, times = [], []
        for query in queries:
            started = time.perf_counter()
            listed = list(pipeline.subject(query.text))  # type: ignore[operator]
            times.append((time.perf_counter() - started) * 1000.0)
            found.append([Candidate(str(i), text) for i, text, _ in listed[: self._depth]])
        return found, times


def _measure(evaluator: Evaluator, ranked: Sequence[Sequence[Candidate]], depth: int) -> Values:
    return evaluator.measure([distinct([c.id for c in each]) for each in ranked], depth)


def _extend(values: dict[str, list[float]], more: dict[str, list[float]]) -> None:
    for name, found in more.items():
        values.setdefault(name, []).extend(found)

"""Ranks every query with every contender at every depth, and measures the rankings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpurerank.evaluation.contender_specs import Contender, build_ranker
from gpurerank.evaluation.measures import (
    MeasureEvaluator,
    Values,
    first_occurrences,
    ideal_ranking,
)
from gpurerank.evaluation.query_set import Candidate, JudgedQuery
from gpurerank.evaluation.replay import MissingScoreError, ProgressCallback
from gpurerank.evaluation.stage_models import StageModels
from gpurerank.types import Ranker

# Pairs per batch of queries: an interruption loses no more. A device that finishes a batch sooner
# than SHORT_BATCH_S gets larger ones, because many small batches keep it waiting.
INITIAL_PAIRS = 640
SHORT_BATCH_S = 3.0
KEPT_PASSAGES = 10

Key = tuple[str, int]  # contender and depth


@dataclass(slots=True)
class MeasuredQueries:
    """Measures and top passages of the queries that are finished.

    Every list has one entry per query, in the order of ``queries``.

    Attributes:
        queries: In the order in which they were ranked.
        first: Measures of the first stage's order.
        ceiling: Measures of the ideal order of the candidates, by depth.
        values: Measures of the rankings, by contender and depth.
        tops: First 10 passages of the rankings, by contender and depth.
        pipeline_ms: Milliseconds that a pipeline took, by contender.
    """

    queries: list[JudgedQuery] = field(default_factory=list)
    first: Values = field(default_factory=dict)
    ceiling: dict[int, Values] = field(default_factory=dict)
    values: dict[Key, Values] = field(default_factory=dict)
    tops: dict[Key, list[list[Candidate]]] = field(default_factory=dict)
    pipeline_ms: dict[str, list[float]] = field(default_factory=dict)

    def extend(self, batch: MeasuredQueries) -> None:
        """Appends a finished batch of queries."""
        self.queries += batch.queries
        _extend(self.first, batch.first)
        for depth, values in batch.ceiling.items():
            _extend(self.ceiling.setdefault(depth, {}), values)
        for key, values in batch.values.items():
            _extend(self.values.setdefault(key, {}), values)
            top = [ranking[:KEPT_PASSAGES] for ranking in batch.tops[key]]
            self.tops.setdefault(key, []).extend(top)
        _extend(self.pipeline_ms, batch.pipeline_ms)


class RankingRunner:
    """Ranks and measures a batch of queries at a time, so that an interruption keeps the rest.

    Each pair is scored once and each passage embedded once; the rankings of all depths, cascades
    and fusions come from these scores, by the same classes as in production. A query whose
    candidates have no relevant passage is not scored: every order of them measures 0.

    Args:
        contenders: What ranks.
        models: Their models.
        depth: Depth at which the first stage and pipelines are measured.
        depths: Depths at which the other contenders are measured.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        models: StageModels,
        depth: int,
        depths: Sequence[int],
    ) -> None:
        self._models = models
        self._depth = depth
        self._depths = tuple(depths)
        self._rankers: dict[str, Ranker] = {}
        self._pipelines = []
        for contender in contenders:
            if contender.plan is not None:
                self._rankers[contender.name] = build_ranker(contender.plan, models.replayed)
            elif isinstance(contender.subject, Ranker):
                self._rankers[contender.name] = contender.subject
            else:
                self._pipelines.append(contender)
        self.measured = MeasuredQueries()

    def run(self, queries: Sequence[JudgedQuery], seed: int, on_progress: ProgressCallback) -> None:
        """Ranks the queries; ``measured`` grows with each batch.

        In random order: what an interrupted run has finished is then a sample of the queries.
        """
        order = np.random.default_rng(seed).permutation(len(queries)).tolist()
        size, start = max(1, INITIAL_PAIRS // max(self._depths)), 0
        while start < len(queries):
            batch = [queries[row] for row in order[start : start + size]]
            on_progress("queries", start, len(queries))
            started = time.perf_counter()
            self.measured.extend(self._measure_batch(batch, on_progress))
            self._models.clear_scores()
            if time.perf_counter() - started < SHORT_BATCH_S:
                size *= 2
            start += len(batch)
        on_progress("queries", len(queries), len(queries))

    def _measure_batch(
        self, queries: list[JudgedQuery], on_progress: ProgressCallback
    ) -> MeasuredQueries:
        # Recall is measured at every depth that a ranking may have.
        evaluator = MeasureEvaluator(queries, sorted({self._depth, *self._depths}))
        # What no ranker can improve keeps the order of the first stage.
        tops = {
            (name, depth): [list(q.candidates[:depth]) for q in queries]
            for name in self._rankers
            for depth in self._depths
        }
        for key, row, ranking in self._rankings(queries, on_progress):
            tops[key][row] = ranking
        pipeline_ms: dict[str, list[float]] = {}
        for pipeline in self._pipelines:
            key = (pipeline.name, self._depth)
            tops[key], pipeline_ms[pipeline.name] = self._run_pipeline(pipeline, queries)
        return MeasuredQueries(
            queries,
            first=_measure(evaluator, [list(q.candidates) for q in queries], self._depth),
            ceiling={
                depth: evaluator.measure([ideal_ranking(query, depth) for query in queries], depth)
                for depth in self._depths
            },
            values={key: _measure(evaluator, rankings, key[1]) for key, rankings in tops.items()},
            tops=tops,
            pipeline_ms=pipeline_ms,
        )

    def _rankings(
        self, queries: Sequence[JudgedQuery], on_progress: ProgressCallback
    ) -> Iterator[tuple[Key, int, list[Candidate]]]:
        """Yields (key, row of the query, ranking) for each query that a ranker can improve."""
        pending = [
            (name, depth, row)
            for row, query in enumerate(queries)
            if query.reachable(max(self._depths))
            for name in self._rankers
            for depth in self._depths
        ]
        # Each round computes what the rankings of the round before lacked. A cascade takes two:
        # its second stage is reached only once the first one has its scores.
        while pending:
            incomplete = []
            for name, depth, row in pending:
                candidates = queries[row].candidates[:depth]
                texts = [candidate.text for candidate in candidates]
                try:
                    ranked = self._rankers[name].rank(queries[row].text, texts)
                except MissingScoreError:
                    incomplete.append((name, depth, row))
                    continue
                yield (name, depth), row, [candidates[passage.index] for passage in ranked]
            self._models.compute_missing(on_progress)
            pending = incomplete

    def _run_pipeline(
        self, pipeline: Contender, queries: Sequence[JudgedQuery]
    ) -> tuple[list[list[Candidate]], list[float]]:
        rankings, times_ms = [], []
        for query in queries:
            started = time.perf_counter()
            results = list(pipeline.subject(query.text))  # type: ignore[operator]
            times_ms.append((time.perf_counter() - started) * 1000.0)
            rankings.append([Candidate(str(i), text) for i, text, _ in results[: self._depth]])
        return rankings, times_ms


def _measure(
    evaluator: MeasureEvaluator, rankings: Sequence[Sequence[Candidate]], depth: int
) -> Values:
    ids = [first_occurrences([c.id for c in ranking]) for ranking in rankings]
    return evaluator.measure(ids, depth)


def _extend(lists: dict[str, list[float]], more: dict[str, list[float]]) -> None:
    for name, values in more.items():
        lists.setdefault(name, []).extend(values)

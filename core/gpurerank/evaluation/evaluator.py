"""Compares rankers over the candidates of judged queries."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone

import numpy as np

from gpurerank.evaluation.advice import advise
from gpurerank.evaluation.changed_queries import most_changed_queries
from gpurerank.evaluation.contender_descriptions import (
    describe_contender,
    import_line,
    python_expression,
)
from gpurerank.evaluation.contender_specs import (
    Contender,
    Contenders,
    build_ranker,
    default_specs,
    resolve_contenders,
)
from gpurerank.evaluation.eval_options import EvalOptions
from gpurerank.evaluation.evaluation_result import (
    Advice,
    ContenderRecord,
    Evaluation,
    Interval,
    Point,
    QueryRecord,
)
from gpurerank.evaluation.measures import MAIN_MEASURE
from gpurerank.evaluation.query_latency import Timing, UncachedRequests, measure_latency
from gpurerank.evaluation.query_set import JudgedQuery, QuerySet
from gpurerank.evaluation.ranking_runner import Key, MeasuredQueries, RankingRunner
from gpurerank.evaluation.replay import ProgressCallback
from gpurerank.evaluation.significance import FloatMatrix, compare, confidence_intervals
from gpurerank.evaluation.stage_models import StageModels
from gpurerank.models.devices import resolve_device
from gpurerank.models.hardware import find_hardware, find_versions
from gpurerank.types import Ranker, TextEmbedder

# With passages embedded ahead, and in the call where that was measured.
Timings = dict[Key, tuple[Timing, Timing | None]]


def ignore_progress(_work: str, _done: int, _total: int) -> None:
    """A progress callback that does nothing."""


def evaluate(
    queries: QuerySet,
    contenders: Contenders = (),
    options: EvalOptions | None = None,
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> Evaluation:
    """Compares contenders over the candidates of judged queries.

    Args:
        queries: From ``QuerySet.from_search`` or ``QuerySet.from_candidate_ids``.
        contenders: Specifications as on the command line, such as "cascade:20"; or a mapping from
            names to specifications, Rankers, or pipelines (a function from a question to (id,
            text, score) of each passage). Empty for a bi-encoder, a cross-encoder, a cascade and
            a fusion of all.
        options: Depths, models and device.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Returns:
        The result. If the run is interrupted or fails later on, the result of the queries that are
        finished, marked as interrupted.

    Raises:
        InputError: A contender or an option is invalid.
        ModelError: A model cannot be loaded.
        KeyboardInterrupt: Interrupted before any query was finished.

    Example:
        >>> from gpurerank.evaluation import QuerySet, evaluate
        >>> def search(question):
        ...     return [("vpn", "Install the VPN.", 2.0), ("keys", "Keys are rotated.", 1.0)]
        >>> questions = [("how are keys rotated?", {"keys"})]
        >>> result = evaluate(QuerySet.from_search(search, questions), ["cross-encoder"])
        >>> result.first_quality.mean < result.main_points()[0].quality.mean
        True
    """
    run = _EvaluationRun(queries, contenders, options or EvalOptions(), on_progress)
    try:
        run.run()
    except KeyboardInterrupt:
        if not run.measured.queries:
            raise
        run.mark_interrupted("interrupted: the results cover the queries finished until then")
    except Exception as error:
        # An hour of finished queries is worth more than a clean failure.
        if not run.measured.queries:
            raise
        reason = " ".join(str(error).split())[:300]
        run.mark_interrupted(
            f"stopped by {type(error).__name__}: {reason}; the results cover the queries finished"
            " until then"
        )
    finally:
        run.close()
    return run.result()


class _EvaluationRun:
    """The state of one evaluation."""

    def __init__(
        self,
        queries: QuerySet,
        contenders: Contenders,
        options: EvalOptions,
        on_progress: ProgressCallback,
    ) -> None:
        options.check()
        self._queries = queries
        self._options = options
        self._on_progress = on_progress
        self._notes: list[str] = []
        self._interrupted = False
        self._timings: Timings = {}
        self._embedders: dict[str, list[TextEmbedder]] = {}  # by contender
        dense = queries.first_stage.startswith("bi-encoder")
        specs = contenders or default_specs(dense_first_stage=dense)
        self._contenders, provided = resolve_contenders(specs, options.model)
        self._models = StageModels(device=options.device, dtype=options.dtype, provided=provided)
        self._depth, self._depths = self._limit_depths(options)
        self._hardware = find_hardware(resolve_device(options.device.split(",")[0])).lines
        self._created_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.measured = MeasuredQueries()

    def run(self) -> None:
        """Ranks and measures everything, then times it.

        In this order, because an interrupted run without latencies still answers which contender
        ranks best.
        """
        for contender in self._contenders:
            self._on_progress(f"loading {contender.name}", 0, 0)
            if contender.plan is not None:
                # A model that does not load, or a server that does not answer, fails now and not
                # after an hour.
                build_ranker(contender.plan, self._models.live).rank("warm", ["up"])
                self._embedders[contender.name] = self._models.embedders(contender.plan)
        runner = RankingRunner(self._contenders, self._models, self._depth, self._depths)
        self.measured = runner.measured
        with self._models.caching_tokens():
            runner.run(self._queries.queries, self._options.seed, self._on_progress)
        self._measure_latencies()

    def close(self) -> None:
        """Frees the models that were loaded for this run."""
        self._models.close()

    def mark_interrupted(self, note: str) -> None:
        """Marks the result as one of a run that ended early."""
        self._interrupted = True
        self._notes.append(note)

    def result(self) -> Evaluation:
        """The result of what was measured and timed so far."""
        first = np.array(self.measured.first[MAIN_MEASURE])
        result = Evaluation(
            name=self._queries.name,
            first_stage=self._queries.first_stage,
            depth=self._depth,
            depths=list(self._depths),
            created_at=self._created_at,
            settings={name: str(value) for name, value in asdict(self._options).items()},
            hardware=self._hardware,
            versions=find_versions("bm25s", "PyStemmer", "ir-measures", "scipy"),
            faults=list(self._queries.faults),
            notes=self._notes,
            interrupted=self._interrupted,
            available=self._queries.available,
            contenders=[self._contender_record(contender) for contender in self._contenders],
            queries=[self._query_record(query) for query in self.measured.queries],
            first=self.measured.first,
            first_quality=_interval(first, self._options.seed),
            ceiling={
                depth: float(np.mean(values[MAIN_MEASURE]))
                for depth, values in self.measured.ceiling.items()
            },
            points=self._points(first),
            examples=[],
            advice=Advice(0, "", [], []),
        )
        result.advice = advise(result)
        # Without a recommendation, the examples come from the best mean.
        subject = result.recommended or max(
            result.points, key=lambda point: point.quality.mean, default=None
        )
        if subject is not None:
            result.examples = most_changed_queries(self.measured, subject.contender, subject.depth)
        return result

    def _limit_depths(self, options: EvalOptions) -> tuple[int, tuple[int, ...]]:
        """The main depth and all depths, as far as there are candidates."""
        longest = max((len(query.candidates) for query in self._queries.queries), default=0)
        depths = options.all_depths
        if not longest or depths[-1] <= longest:
            return options.depth, depths
        self._notes.append(
            f"no query has more than {longest} candidates; greater depths are left out"
        )
        limited = tuple(sorted({min(depth, longest) for depth in depths}))
        return min(options.depth, longest), limited

    def _measure_latencies(self) -> None:
        reachable = [q for q in self.measured.queries if q.reachable(self._depths[-1])]
        requests = UncachedRequests(reachable or self.measured.queries, self._options.seed)
        cells = [(contender, depth) for depth in self._depths for contender in self._contenders]
        for done, (contender, depth) in enumerate(cells):
            self._on_progress("timing", done, len(cells))
            key, plan = (contender.name, depth), contender.plan
            ranker = build_ranker(plan, self._models.live) if plan else contender.subject
            if isinstance(ranker, Ranker):
                self._timings[key] = self._measure_latency(contender, ranker, requests, depth)
            elif depth == self._depth:
                # A pipeline retrieves by itself: it was timed when it was run.
                self._timings[key] = (Timing(self.measured.pipeline_ms[contender.name]), None)
        self._on_progress("timing", len(cells), len(cells))

    def _measure_latency(
        self, contender: Contender, ranker: Ranker, requests: UncachedRequests, depth: int
    ) -> tuple[Timing, Timing | None]:
        embedders = self._embedders.get(contender.name, [])
        timing = measure_latency(ranker, requests, depth, embedders=embedders)
        # Embedding in the call is shown for comparison only, and slow: one depth is enough.
        if depth != self._depth or not embedders:
            return timing, None
        return timing, measure_latency(ranker, requests, depth)

    def _contender_record(self, contender: Contender) -> ContenderRecord:
        return ContenderRecord(
            contender.name,
            describe_contender(contender),
            import_line(contender),
            python_expression(contender),
            bool(self._embedders.get(contender.name)),
        )

    def _query_record(self, query: JudgedQuery) -> QueryRecord:
        relevant = sum(grade > 0 for grade in query.grades.values())
        return QueryRecord(query.id, query.text, relevant, query.reachable(self._depths[-1]))

    def _points(self, first: FloatMatrix) -> list[Point]:
        if not self.measured.values:
            return []
        names = [contender.name for contender in self._contenders]
        keys = sorted(self.measured.values, key=lambda key: (names.index(key[0]), key[1]))
        values = np.array([self.measured.values[key][MAIN_MEASURE] for key in keys])
        # All contenders and depths are tested together: the correction needs every comparison.
        comparisons = compare(values - first, self._options.seed)  # (points, queries)
        lows, highs = confidence_intervals(values, self._options.seed)
        points = []
        for row, key in enumerate(keys):
            latency, latency_with_embedding = self._timings.get(key, (None, None))
            quality = Interval(float(values[row].mean()), float(lows[row]), float(highs[row]))
            points.append(
                Point(
                    *key,
                    values=self.measured.values[key],
                    quality=quality,
                    against_first=comparisons[row],
                    latency=latency,
                    latency_with_embedding=latency_with_embedding,
                )
            )
        return points


def _interval(values: FloatMatrix, seed: int) -> Interval:
    """The mean of values, shape (queries,), with its confidence interval."""
    (low,), (high,) = confidence_intervals(values[None], seed)
    return Interval(float(values.mean()), float(low), float(high))

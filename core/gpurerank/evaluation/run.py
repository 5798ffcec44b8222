"""Does reranking help these queries, which kind, and how deep?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone

import numpy as np

from gpurerank.evaluation.advice import advise
from gpurerank.evaluation.contenders import Contender, Plan, build, default_specs, stages
from gpurerank.evaluation.examples import changed_most
from gpurerank.evaluation.judging import Judge, Judged, Key
from gpurerank.evaluation.known import Say
from gpurerank.evaluation.latency import Requests, Timing, measure_latency
from gpurerank.evaluation.measures import MAIN
from gpurerank.evaluation.options import Contenders, EvalOptions, resolve
from gpurerank.evaluation.queries import QuerySet
from gpurerank.evaluation.records import (
    Advice,
    ContenderRecord,
    Evaluation,
    Interval,
    Point,
    QueryRecord,
)
from gpurerank.evaluation.significance import compare, confidence_intervals
from gpurerank.evaluation.stages import Stages
from gpurerank.evaluation.wording import as_python, described, imports
from gpurerank.models.devices import resolve_device
from gpurerank.models.hardware import find_hardware, find_versions
from gpurerank.types import Ranker, TextEmbedder

Timings = dict[Key, tuple[Timing, Timing | None]]


def quiet(_what: str, _done: int, _total: int) -> None:
    """Says nothing."""


def evaluate(
    queries: QuerySet,
    contenders: Contenders = (),
    options: EvalOptions | None = None,
    *,
    say: Say = quiet,
) -> Evaluation:
    """Compares contenders over the candidates of judged queries.

    Args:
        queries: From ``QuerySet.from_found`` or ``QuerySet.from_search``.
        contenders: Texts as on the command line, such as "cascade:20"; or a mapping from names to
            texts, Rankers, or whole pipelines (a callable that takes a question and returns (id,
            text, score) for each passage). None are the usual ones.
        options: Depths, models, the device.
        say: Called with (what, done, total) as the work goes on.

    Returns:
        What was found; of an interrupted run, what was finished.

    Raises:
        InputError: A contender or an option is wrong.
        ModelError: A model cannot be loaded.
        KeyboardInterrupt: Before anything was finished.
    """
    run = _Run(queries, contenders, options or EvalOptions(), say)
    try:
        run.work()
    except KeyboardInterrupt:
        if not run.judged.queries:
            raise
        run.stopped("interrupted: what was finished until then is shown")
    except Exception as error:
        if not run.judged.queries:
            raise
        reason = " ".join(str(error).split())[:300]
        run.stopped(f"stopped by {type(error).__name__}: {reason}; what was finished is shown")
    finally:
        run.close()
    return run.evaluation()


class _Run:
    """One evaluation as it goes."""

    def __init__(
        self, queries: QuerySet, contenders: Contenders, options: EvalOptions, say: Say
    ) -> None:
        options.check()
        self._queries = queries
        self._options = options
        self._say = say
        self._notes: list[str] = []
        self._interrupted = False
        self._timings: Timings = {}
        # What embeds the passages of each contender, which can be done ahead of time.
        self._ahead: dict[str, list[TextEmbedder]] = {}
        self._stages = Stages(device=options.device, dtype=options.dtype)
        specs = contenders or default_specs(dense=queries.first_stage.startswith("bi-encoder"))
        self._contenders = resolve(specs, self._stages, options.model)
        self._depth, self._depths = self._reached(options)
        self._hardware = find_hardware(resolve_device(options.device.split(",")[0])).lines
        self._created_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.judged = Judged()

    def work(self) -> None:
        """Ranks everything, and then times it."""
        for contender in self._contenders:
            self._say(f"loading {contender.name}", 0, 0)
            if contender.plan is not None:
                # What cannot be loaded, or answers nothing, fails now and not after an hour.
                build(contender.plan, self._stages.live).rank("warm", ["up"])
                self._ahead[contender.name] = self._embedders(contender.plan)
        judge = Judge(self._contenders, self._stages, self._depth, self._depths)
        self.judged = judge.judged
        with self._stages.reading_once():
            judge.judge(self._queries.queries, self._options.seed, self._say)
        self._time()

    def close(self) -> None:
        """Gives the models back that were loaded for this."""
        self._stages.close()

    def stopped(self, note: str) -> None:
        """Marks the run as one that did not come to its end."""
        self._interrupted = True
        self._notes.append(note)

    def evaluation(self) -> Evaluation:
        """Everything, from what was judged and timed so far."""
        first = np.array(self.judged.first[MAIN])
        found = Evaluation(
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
            judged=self._queries.judged,
            contenders=[self._record(contender) for contender in self._contenders],
            queries=[
                QueryRecord(q.id, q.text, _relevant(q.grades), q.reachable(self._depths[-1]))
                for q in self.judged.queries
            ],
            first=self.judged.first,
            first_quality=_interval(first, self._options.seed),
            ceiling={d: float(np.mean(v[MAIN])) for d, v in self.judged.ceiling.items()},
            points=self._points(first),
            examples=[],
            advice=Advice(0, "", [], []),
        )
        found.advice = advise(found)
        key = (found.advice.contender, found.advice.depth)
        if key not in self.judged.tops and found.points:
            best = max(found.points, key=lambda point: point.quality.mean)
            key = (best.contender, best.depth)
        if key in self.judged.tops:
            found.examples = changed_most(self.judged, *key)
        return found

    def _reached(self, options: EvalOptions) -> tuple[int, tuple[int, ...]]:
        """The depths that there are candidates for."""
        longest = max((len(query.candidates) for query in self._queries.queries), default=0)
        asked = options.all_depths
        if not longest or asked[-1] <= longest:
            return options.depth, asked
        self._notes.append(
            f"no query has more than {longest} candidates; deeper was asked for and is left out"
        )
        depths = tuple(sorted({min(depth, longest) for depth in asked}))
        return min(options.depth, longest), depths

    def _time(self) -> None:
        reachable = [q for q in self.judged.queries if q.reachable(self._depths[-1])]
        requests = Requests(reachable or self.judged.queries, self._options.seed)
        cells = [(contender, depth) for depth in self._depths for contender in self._contenders]
        for done, (contender, depth) in enumerate(cells):
            self._say("timing", done, len(cells))
            key, plan = (contender.name, depth), contender.plan
            ranker = build(plan, self._stages.live) if plan else contender.subject
            if isinstance(ranker, Ranker):
                self._timings[key] = self._timed(contender.name, ranker, requests, depth)
            elif depth == self._depth:
                self._timings[key] = (Timing(self.judged.search_ms[contender.name]), None)
        self._say("timing", len(cells), len(cells))

    def _timed(
        self, name: str, ranker: Ranker, requests: Requests, depth: int
    ) -> tuple[Timing, Timing | None]:
        embedders = self._ahead.get(name, [])
        timing = measure_latency(ranker, requests, depth, ahead=embedders)
        # Embedding in the call is for comparison, and takes its time: one depth tells enough.
        if depth != self._depth or not embedders:
            return timing, None
        return timing, measure_latency(ranker, requests, depth)

    def _embedders(self, plan: Plan) -> list[TextEmbedder]:
        found = [self._stages.embedder(stage) for stage in stages(plan)]
        return [each for each in found if each is not None]

    def _record(self, contender: Contender) -> ContenderRecord:
        return ContenderRecord(
            contender.name,
            described(contender),
            imports(contender),
            as_python(contender),
            bool(self._ahead.get(contender.name)),
        )

    def _points(self, first: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[Point]:
        if not self.judged.values:
            return []
        keys = sorted(self.judged.values, key=lambda key: (self._order(key[0]), key[1]))
        values = np.array([self.judged.values[key][MAIN] for key in keys])
        comparisons = compare(values - first, self._options.seed)
        lows, highs = confidence_intervals(values, self._options.seed)
        return [
            Point(
                contender=name,
                depth=depth,
                values=self.judged.values[name, depth],
                quality=Interval(float(row.mean()), float(low), float(high)),
                against_first=comparison,
                latency=self._timings.get((name, depth), (None, None))[0],
                latency_anew=self._timings.get((name, depth), (None, None))[1],
            )
            for (name, depth), row, low, high, comparison in zip(
                keys, values, lows, highs, comparisons, strict=True
            )
        ]

    def _order(self, name: str) -> int:
        return [contender.name for contender in self._contenders].index(name)


def _interval(values: np.ndarray[tuple[int], np.dtype[np.float64]], seed: int) -> Interval:
    (low,), (high,) = confidence_intervals(values[None], seed)
    return Interval(float(values.mean()), float(low), float(high))


def _relevant(grades: Mapping[str, int]) -> int:
    return sum(grade > 0 for grade in grades.values())

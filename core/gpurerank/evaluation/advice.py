"""What to do, from what was measured, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from gpurerank.evaluation.figures import duration, interval, signed
from gpurerank.evaluation.measures import MAIN
from gpurerank.evaluation.records import Advice, ContenderRecord, Evaluation, Point
from gpurerank.evaluation.significance import queries_needed, standard_error

# Within so much of the shortest time the better mean counts, not the time.
ALIKE = 1.1
FEW_QUERIES = 50
MEANINGFUL = 0.005


def choose(points: Sequence[Point]) -> tuple[Point, Point] | None:
    """The point to take and the one with the best mean; None where nothing is surely better.

    Among the points that are surely better than the first stage, the fastest is taken whose mean
    is within one standard error (of the difference, query by query) of the best: the one standard
    error rule (Breiman et al., Classification and Regression Trees, 1984).
    """
    better = [p for p in points if p.against_first.verdict > 0]
    if not better:
        return None
    best = max(better, key=lambda p: p.quality.mean)
    near = [p for p in better if gap(best, p) <= standard_error(differences(best, p))]
    timed = [(p.p50_ms, p) for p in near if p.p50_ms is not None]
    if not timed:
        return best, best
    fastest = min(ms for ms, _ in timed)
    alike = [p for ms, p in timed if ms <= ALIKE * fastest]
    return max(alike, key=lambda p: p.quality.mean), best


def gap(better: Point, other: Point) -> float:
    """How much higher the one mean is than the other."""
    return better.quality.mean - other.quality.mean


def differences(one: Point, other: Point) -> list[float]:
    """Query by query."""
    return [a - b for a, b in zip(one.main, other.main, strict=True)]


def advise(evaluation: Evaluation) -> Advice:
    """The recommendation."""
    if not evaluation.points:
        return Advice(0, "Nothing was compared.", [], ["the run ended too early"])
    chosen = choose(evaluation.points)
    if chosen is not None:
        return _take(evaluation, *chosen)
    if all(point.against_first.verdict < 0 for point in evaluation.shown()):
        return _leave(evaluation)
    return _cannot_tell(evaluation)


def _take(evaluation: Evaluation, point: Point, best: Point) -> Advice:
    against = point.against_first
    record = _record(evaluation, point)
    headline = (
        f"Rerank with {point.contender} on {point.depth} candidates: {MAIN}"
        f" {signed(against.difference)}{_at(point)}."
    )
    reasons = [
        f"Better than {evaluation.first_stage} alone, and not by chance: {interval(point)}; it"
        f" rises for {against.wins:,} queries, falls for {against.losses:,} and stays for"
        f" {against.ties:,}.",
        *_beside_best(point, best),
        *_deeper(evaluation, point),
    ]
    return Advice(
        1,
        headline,
        reasons,
        _doubts(evaluation, point, record),
        _code(record, point),
        point.contender,
        point.depth,
    )


def _leave(evaluation: Evaluation) -> Advice:
    best = max(evaluation.shown(), key=lambda p: p.quality.mean)
    headline = f"Keep {evaluation.first_stage} alone: every contender makes this data worse."
    reasons = [f"The best of them, {best.contender} on {best.depth}: {MAIN} {interval(best)}."]
    doubts = ["Another model may do better: --model takes any cross-encoder."]
    return Advice(-1, headline, reasons, [*doubts, *_common_doubts(evaluation)])


def _cannot_tell(evaluation: Evaluation) -> Advice:
    best = max(evaluation.points, key=lambda p: p.quality.mean)
    headline = "This data cannot tell whether reranking helps."
    count, tried = len(evaluation.queries), len(evaluation.points)
    reasons = [
        f"The best, {best.contender} on {best.depth} candidates, changes {MAIN} by"
        f" {interval(best)}, over {count:,} queries."
    ]
    if best.against_first.low > 0:
        reasons.append(
            f"Its interval leaves 0 out, but the test, corrected for all {tried} compared, does not"
            " call it sure."
        )
    needed = queries_needed(differences_from_first(evaluation, best))
    if needed is not None and needed > count:
        reasons.append(
            f"If the difference is real, about {needed:,} judged queries would show it in 4 of 5"
            " tries."
        )
    harmful = [p.contender for p in evaluation.shown() if p.against_first.verdict < 0]
    if harmful:
        reasons.append(f"Surely worse: {', '.join(harmful)}.")
    doubts = [f"Until more is known {evaluation.first_stage} alone is the cheap choice."]
    return Advice(0, headline, reasons, [*doubts, *_common_doubts(evaluation)])


def differences_from_first(evaluation: Evaluation, point: Point) -> list[float]:
    """Query by query, from the first stage."""
    return [a - b for a, b in zip(point.main, evaluation.first[MAIN], strict=True)]


def _beside_best(point: Point, best: Point) -> list[str]:
    if point is best:
        return ["No contender has a better mean."]
    error = standard_error(differences(best, point))
    times = ""
    if best.p50_ms and point.p50_ms:
        times = f", and takes {best.p50_ms / point.p50_ms:.1f} times as long"
    return [
        f"{best.contender} on {best.depth} has the best mean, {signed(gap(best, point))} more"
        f" (within one standard error, {error:.3f}){times}."
    ]


def _deeper(evaluation: Evaluation, point: Point) -> list[str]:
    deeper = [p for p in evaluation.of(point.contender) if p.depth > point.depth]
    if not deeper:
        return []
    last = deeper[-1]
    times = ""
    if last.p50_ms and point.p50_ms:
        times = f" for {last.p50_ms / point.p50_ms:.1f} times the time"
    return [
        f"{last.depth} candidates in place of {point.depth} give {signed(gap(last, point))}{times}."
    ]


def _doubts(evaluation: Evaluation, point: Point, record: ContenderRecord) -> list[str]:
    found = _embedding(evaluation, point) if record.embeds else []
    against = point.against_first
    if against.low < MEANINGFUL:
        found.append(f"The gain may be as small as {signed(against.low)}.")
    tried = len(evaluation.points)
    if tried > 1:
        found.append(
            f"It was chosen among {tried} on these very queries: expect a little less on new ones."
        )
    return [*found, *_common_doubts(evaluation)]


def _embedding(evaluation: Evaluation, point: Point) -> list[str]:
    """What the latency leaves out; what it adds is measured at the main depth."""
    if point.latency is None:
        return []
    said = f"{duration(point.latency.p50_ms)} is with the passages embedded ahead of time"
    shown = evaluation.at(point.contender, evaluation.depth)
    if shown is None or shown.latency is None or shown.latency_anew is None:
        return [f"{said}."]
    more = shown.latency_anew.p50_ms - shown.latency.p50_ms
    return [f"{said}; embedding {shown.depth} in the call takes {duration(more)} more."]


def _common_doubts(evaluation: Evaluation) -> list[str]:
    found = []
    count = len(evaluation.queries)
    reached = sum(query.reachable for query in evaluation.queries)
    if reached < 0.9 * count:
        found.append(
            f"For {count - reached:,} of {count:,} queries nothing relevant is among the"
            " candidates: there a better or deeper first stage would help, and no reranker can."
        )
    if count < FEW_QUERIES:
        found.append(f"{count} queries are few; 50 and more make a difference easier to see.")
    if count < evaluation.judged:
        found.append(f"{count:,} of {evaluation.judged:,} judged queries were taken, at random.")
    return found


def _record(evaluation: Evaluation, point: Point) -> ContenderRecord:
    return next(each for each in evaluation.contenders if each.name == point.contender)


def _code(record: ContenderRecord, point: Point) -> str:
    if not record.expression:
        return ""
    return (
        f"{record.import_line}\n\nranker = {record.expression}\n"
        f"best = ranker.rank(query, passages[:{point.depth}], top_k=5)"
    )


def _at(point: Point) -> str:
    return "" if point.p50_ms is None else f" at {duration(point.p50_ms)}"

"""The recommendation that follows from the measurements, and its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

from gpurerank.evaluation.evaluation_result import Advice, ContenderRecord, Evaluation, Point
from gpurerank.evaluation.measures import MAIN_MEASURE
from gpurerank.evaluation.number_format import format_change, format_duration, format_interval
from gpurerank.evaluation.significance import queries_needed, standard_error

# Latencies within this factor of the lowest count as equal, and the better mean decides: two
# measurements of the same ranker differ by as much.
LATENCY_TOLERANCE = 1.1
FEW_QUERIES = 50
# A smaller gain of nDCG@10 is hardly worth a second stage.
MEANINGFUL_GAIN = 0.005


def choose_point(points: Sequence[Point]) -> tuple[Point, Point] | None:
    """The point to recommend and the point with the best mean.

    Of the points that are significantly better than the first stage, the fastest whose mean is
    within one standard error (of the differences, query by query) of the best mean: the
    one-standard-error rule.

    Returns:
        None where no point is significantly better.

    Source: Breiman et al., Classification and Regression Trees, 1984.
    """
    better = [p for p in points if p.against_first.verdict > 0]
    if not better:
        return None
    best = max(better, key=lambda p: p.quality.mean)
    # The error of the difference, not of the means: both rank the same queries.
    near = [p for p in better if _mean_gap(best, p) <= standard_error(_differences(best, p))]
    timed = [(p.p50_ms, p) for p in near if p.p50_ms is not None]
    # Interrupted before the latencies: the best mean is all that is known.
    if not timed:
        return best, best
    lowest_ms = min(ms for ms, _ in timed)
    fast = [p for ms, p in timed if ms <= LATENCY_TOLERANCE * lowest_ms]
    return max(fast, key=lambda p: p.quality.mean), best


def pareto_frontier(points: Sequence[Point], first_stage_mean: float) -> list[Point]:
    """The points with a better mean than every point that is as fast, fastest first.

    Args:
        points: Those without a latency are left out.
        first_stage_mean: Mean of the first stage, which costs nothing more; points below it are
            never on the frontier.
    """
    timed = [(p.p50_ms, -p.quality.mean, p) for p in points if p.p50_ms is not None]
    frontier: list[Point] = []
    # Of equal latencies the better mean comes first, and keeps the other off the frontier.
    for _, _, point in sorted(timed, key=lambda entry: entry[:2]):
        best = frontier[-1].quality.mean if frontier else first_stage_mean
        if point.quality.mean > best:
            frontier.append(point)
    return frontier


def advise(evaluation: Evaluation) -> Advice:
    """The recommendation for an evaluation; needs everything of it but ``advice``."""
    if not evaluation.points:
        return Advice(0, "Nothing was compared.", [], ["The run ended too early."])
    chosen = choose_point(evaluation.points)
    if chosen is not None:
        return _recommend(evaluation, *chosen)
    # One contender that is not significantly worse leaves the question open.
    if all(point.against_first.verdict < 0 for point in evaluation.main_points()):
        return _advise_against(evaluation)
    return _inconclusive(evaluation)


def _recommend(evaluation: Evaluation, point: Point, best: Point) -> Advice:
    gain = point.against_first
    record = next(r for r in evaluation.contenders if r.name == point.contender)
    latency = "" if point.p50_ms is None else f" at {format_duration(point.p50_ms)} per query"
    headline = (
        f"Rerank with {point.contender} on {point.depth} candidates: {MAIN_MEASURE}"
        f" {format_change(gain.difference)}{latency}."
    )
    reasons = [
        f"Significantly better than {evaluation.first_stage} alone: {format_interval(point)}."
        f" {gain.wins:,} queries improve, {gain.losses:,} get worse, {gain.ties:,} stay the same.",
        *_reasons_from_best(point, best),
        *_reasons_from_depth(evaluation, point),
    ]
    return Advice(
        1,
        headline,
        reasons,
        _doubts(evaluation, point, record),
        _python_code(record, point),
        point.contender,
        point.depth,
    )


def _advise_against(evaluation: Evaluation) -> Advice:
    best = max(evaluation.main_points(), key=lambda p: p.quality.mean)
    headline = (
        f"Keep {evaluation.first_stage} alone: every contender is significantly worse on this data."
    )
    reasons = [
        f"The best contender, {best.contender} on {best.depth} candidates, changes {MAIN_MEASURE}"
        f" by {format_interval(best)}."
    ]
    doubts = ["Another model may do better: --model accepts any cross-encoder."]
    return Advice(-1, headline, reasons, [*doubts, *_common_doubts(evaluation)])


def _inconclusive(evaluation: Evaluation) -> Advice:
    best = max(evaluation.points, key=lambda p: p.quality.mean)
    headline = "This data cannot show whether reranking helps."
    count, compared = len(evaluation.queries), len(evaluation.points)
    reasons = [
        f"The best contender, {best.contender} on {best.depth} candidates, changes {MAIN_MEASURE}"
        f" by {format_interval(best)}, over {count:,} queries."
    ]
    # The interval is not corrected for the number of comparisons, the p-value is.
    if best.against_first.low > 0:
        reasons.append(
            "Its interval excludes 0, but the test, which is corrected for all"
            f" {compared} comparisons, is not significant."
        )
    needed = queries_needed(evaluation.differences_from_first(best))
    if needed is not None and needed > count:
        reasons.append(
            f"If the difference is real, about {needed:,} judged queries would show it with a"
            " probability of 80%."
        )
    harmful = [p.contender for p in evaluation.main_points() if p.against_first.verdict < 0]
    if harmful:
        reasons.append(f"Significantly worse: {', '.join(harmful)}.")
    doubts = [f"Until there is more data, {evaluation.first_stage} alone is the cheaper choice."]
    return Advice(0, headline, reasons, [*doubts, *_common_doubts(evaluation)])


def _reasons_from_best(point: Point, best: Point) -> list[str]:
    if point is best:
        return ["No contender has a better mean."]
    error = standard_error(_differences(best, point))
    cost = ""
    if best.p50_ms and point.p50_ms:
        cost = f", and takes {best.p50_ms / point.p50_ms:.1f} times as long"
    return [
        f"{best.contender} on {best.depth} candidates has the best mean, higher by"
        f" {_mean_gap(best, point):.3f} (within one standard error, {error:.3f}){cost}."
    ]


def _reasons_from_depth(evaluation: Evaluation, point: Point) -> list[str]:
    deeper = [p for p in evaluation.points_of(point.contender) if p.depth > point.depth]
    if not deeper:
        return []
    deepest = deeper[-1]
    cost = ""
    if deepest.p50_ms and point.p50_ms:
        cost = f" and take {deepest.p50_ms / point.p50_ms:.1f} times as long"
    change = format_change(_mean_gap(deepest, point))
    return [
        f"{deepest.depth} candidates instead of {point.depth} change {MAIN_MEASURE} by"
        f" {change}{cost}."
    ]


def _doubts(evaluation: Evaluation, point: Point, record: ContenderRecord) -> list[str]:
    doubts = _embedding_cost(evaluation, point) if record.embeds else []
    gain = point.against_first
    if gain.low < MEANINGFUL_GAIN:
        doubts.append(f"The gain may be as small as {format_change(gain.low)}.")
    compared = len(evaluation.points)
    # The best of several noisy means is too high on average (selection bias).
    if compared > 1:
        doubts.append(
            f"It was chosen from {compared} combinations on these queries; expect slightly less on"
            " new ones."
        )
    return [*doubts, *_common_doubts(evaluation)]


def _embedding_cost(evaluation: Evaluation, point: Point) -> list[str]:
    """What the latency leaves out; the cost of embedding is known for the main depth only."""
    if point.latency is None:
        return []
    ahead = f"{format_duration(point.latency.p50_ms)} assumes passages embedded ahead of the query"
    main = evaluation.at(point.contender, evaluation.depth)
    if main is None or main.latency is None or main.latency_with_embedding is None:
        return [f"{ahead}."]
    extra_ms = main.latency_with_embedding.p50_ms - main.latency.p50_ms
    return [
        f"{ahead}; embedding {main.depth} passages in the call adds {format_duration(extra_ms)}."
    ]


def _common_doubts(evaluation: Evaluation) -> list[str]:
    doubts = []
    count = len(evaluation.queries)
    unreachable = sum(not query.reachable for query in evaluation.queries)
    if unreachable > 0.1 * count:
        doubts.append(
            f"{unreachable:,} of {count:,} queries have no relevant passage among their candidates."
            " No reranker can help them; a better or deeper first stage can."
        )
    if count < FEW_QUERIES:
        doubts.append(f"{count} queries are few; {FEW_QUERIES} or more show smaller differences.")
    if count < evaluation.available:
        doubts.append(f"These are {count:,} of {evaluation.available:,} judged queries, at random.")
    return doubts


def _python_code(record: ContenderRecord, point: Point) -> str:
    if not record.expression:
        return ""
    return (
        f"{record.import_line}\n\nranker = {record.expression}\n"
        f"best = ranker.rank(query, passages[:{point.depth}], top_k=5)"
    )


def _mean_gap(better: Point, other: Point) -> float:
    return better.quality.mean - other.quality.mean


def _differences(one: Point, other: Point) -> list[float]:
    """Differences of the nDCG@10, one value per query."""
    return [a - b for a, b in zip(one.main, other.main, strict=True)]

"""The result of an evaluation: plain values that become JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gpurerank.evaluation.measures import MAIN_MEASURE, Values
from gpurerank.evaluation.query_latency import Timing
from gpurerank.evaluation.significance import Comparison
from gpurerank.faults import Fault

# Raised with every change of the JSON that a reader has to know about.
SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """A judged query.

    Attributes:
        relevant: Number of relevant documents.
        reachable: Whether one of them is among the candidates of the largest depth.
    """

    id: str
    text: str
    relevant: int
    reachable: bool


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the ends of its 95% confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """One contender at one depth.

    Attributes:
        contender: Its name.
        depth: Candidates that it reranked.
        values: One value per query by measure, in the order of the evaluation's queries.
        quality: Mean nDCG@10.
        against_first: Comparison with the first stage alone.
        latency: With the passages of bi-encoders embedded ahead; None if not measured.
        latency_with_embedding: With the passages embedded in the call; measured at the main depth
            of contenders that embed any.
    """

    contender: str
    depth: int
    # Per query, so that any two points can be compared query by query later on.
    values: Values
    quality: Interval
    against_first: Comparison
    latency: Timing | None = None
    latency_with_embedding: Timing | None = None

    @property
    def main(self) -> list[float]:
        """The nDCG@10 of each query."""
        return self.values[MAIN_MEASURE]

    def mean(self, measure: str) -> float:
        """The mean of a measure over the queries."""
        return float(np.mean(self.values[measure]))

    @property
    def p50_ms(self) -> float | None:
        """Median latency in milliseconds; None if not measured."""
        return None if self.latency is None else self.latency.p50_ms


@dataclass(frozen=True, slots=True)
class ExamplePassage:
    """A passage of an example.

    Attributes:
        grade: Relevance; above 0 is relevant.
        rank: Rank in this ranking, from 1.
        other_rank: Rank in the ranking that it is compared with; None if it is not there.
    """

    id: str
    text: str
    grade: int
    rank: int
    other_rank: int | None


@dataclass(frozen=True, slots=True)
class Example:
    """A query with the first passages and the nDCG@10 before and after reranking."""

    query_id: str
    query: str
    value_before: float
    value_after: float
    before: list[ExamplePassage]
    after: list[ExamplePassage]


@dataclass(frozen=True, slots=True)
class ContenderRecord:
    """A contender in words, and as Python code.

    Attributes:
        import_line: Import statement for ``expression``.
        expression: Builds the ranker; empty for an object that the caller passed.
        embeds: Whether some of its work can be done ahead of a query.
    """

    name: str
    description: str
    import_line: str
    expression: str
    embeds: bool


@dataclass(frozen=True, slots=True)
class Advice:
    """The recommendation, its reasons, and what limits it.

    Attributes:
        verdict: 1 if reranking helps, -1 if it hurts, 0 if the data cannot show either.
        headline: One sentence.
        reasons: Sentences that support it.
        doubts: Sentences about what makes it uncertain.
        code: Python code that follows it; empty if there is nothing to do.
        contender: The recommended contender; empty if there is none.
        depth: Its depth.
    """

    verdict: int
    headline: str
    reasons: list[str]
    doubts: list[str]
    code: str = ""
    contender: str = ""
    depth: int = 0


@dataclass(slots=True)
class Evaluation:
    """The settings, the data and all results of an evaluation.

    Attributes:
        name: Name of the collection.
        first_stage: What retrieved the candidates.
        depth: Candidates per query in the main table.
        depths: All depths that were compared, ascending.
        created_at: Start of the evaluation, ISO 8601 in UTC.
        settings: Options by name, as strings.
        hardware: Lines about the machine.
        versions: Versions by package.
        faults: Problems in the data.
        notes: Remarks about the run, such as its interruption.
        interrupted: Whether queries are missing because the run ended early.
        available: Judged queries that the collection has.
        contenders: In the order of the reports.
        queries: In the order in which every list of per-query values is.
        first: Measures of the first stage alone, one value per query.
        first_quality: Mean nDCG@10 of the first stage alone.
        ceiling: Mean nDCG@10 of the ideal order of the candidates, by depth.
        points: Every contender at every depth.
        examples: Queries that the recommended contender changed most.
        advice: The recommendation.
    """

    name: str
    first_stage: str
    depth: int
    depths: list[int]
    created_at: str
    settings: dict[str, str]
    hardware: list[str]
    versions: dict[str, str]
    faults: list[Fault]
    notes: list[str]
    interrupted: bool
    available: int
    contenders: list[ContenderRecord]
    queries: list[QueryRecord]
    first: Values
    first_quality: Interval
    ceiling: dict[int, float]
    points: list[Point]
    examples: list[Example]
    advice: Advice
    schema_version: int = field(default=SCHEMA_VERSION)

    def at(self, contender: str, depth: int) -> Point | None:
        """The point of a contender at a depth; None if it was not measured."""
        for point in self.points:
            if (point.contender, point.depth) == (contender, depth):
                return point
        return None

    def points_of(self, contender: str) -> list[Point]:
        """All points of a contender, smallest depth first."""
        return sorted((p for p in self.points if p.contender == contender), key=lambda p: p.depth)

    def main_points(self) -> list[Point]:
        """The points of the main table: each contender at the main depth."""
        return [p for p in self.points if p.depth == self.depth]

    @property
    def recommended(self) -> Point | None:
        """The point that the advice recommends; None if it recommends none."""
        return self.at(self.advice.contender, self.advice.depth)

    def differences_from_first(self, point: Point) -> list[float]:
        """The nDCG@10 of a point minus that of the first stage, one value per query."""
        return [a - b for a, b in zip(point.main, self.first[MAIN_MEASURE], strict=True)]

    def to_json(self) -> str:
        """All attributes as indented JSON."""
        values: dict[str, Any] = asdict(self)
        # NaN is no JSON, and other languages refuse it.
        return json.dumps(values, indent=1, allow_nan=False)

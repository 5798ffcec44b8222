"""A whole evaluation as one tree of values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gpurerank.evaluation.latency import Timing
from gpurerank.evaluation.measures import MAIN, Values
from gpurerank.evaluation.significance import Comparison
from gpurerank.faults import Fault

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """A judged query; ``reachable`` says whether a relevant passage is among its candidates."""

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
        depth: Candidates that it was given.
        values: By measure, one value a query, in the order of the evaluation's queries.
        quality: The mean of nDCG@10.
        against_first: Beside the first stage alone.
        latency: With the passages of bi-encoders embedded ahead; None where it was not measured.
        latency_anew: With passages embedded in the call; at the main depth, where any are embedded.
    """

    contender: str
    depth: int
    values: Values
    quality: Interval
    against_first: Comparison
    latency: Timing | None = None
    latency_anew: Timing | None = None

    @property
    def main(self) -> list[float]:
        """nDCG@10 of each query."""
        return self.values[MAIN]

    def mean(self, measure: str) -> float:
        """The mean of a measure over the queries."""
        return float(np.mean(self.values[measure]))

    @property
    def p50_ms(self) -> float | None:
        """The middle of its latency, where that was measured."""
        return None if self.latency is None else self.latency.p50_ms


@dataclass(frozen=True, slots=True)
class Shown:
    """A passage of an example: its place in one ranking, and in the other where it has one there.

    Attributes:
        other_rank: None where it is not among the candidates of the other.
    """

    id: str
    text: str
    grade: int
    rank: int
    other_rank: int | None


@dataclass(frozen=True, slots=True)
class Example:
    """A query before and after: the top of both rankings, and nDCG@10 of each."""

    query_id: str
    query: str
    value_before: float
    value_after: float
    before: list[Shown]
    after: list[Shown]


@dataclass(frozen=True, slots=True)
class ContenderRecord:
    """A contender in words, and as Python where it can be said so."""

    name: str
    described: str
    import_line: str
    expression: str
    embeds: bool


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, why, and what the data cannot tell.

    Attributes:
        verdict: 1 where reranking helps, -1 where it hurts, 0 where the data cannot tell.
        headline: One sentence.
        reasons: What speaks for it.
        doubts: What makes it uncertain.
        code: Python that does it; empty where there is nothing to do.
        contender: Who is recommended; empty for nobody.
        depth: At which depth.
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
    """What was asked, on what, and everything that was found."""

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
    judged: int
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
        """The point of a contender at a depth."""
        for point in self.points:
            if (point.contender, point.depth) == (contender, depth):
                return point
        return None

    def of(self, contender: str) -> list[Point]:
        """All points of a contender, the shallowest first."""
        return sorted((p for p in self.points if p.contender == contender), key=lambda p: p.depth)

    def shown(self) -> list[Point]:
        """The points of the main table: each contender at the main depth."""
        return [p for p in self.points if p.depth == self.depth]

    @property
    def recommended(self) -> Point | None:
        """The point that the advice names."""
        return self.at(self.advice.contender, self.advice.depth)

    def to_json(self) -> str:
        """Everything, as indented JSON; per-query values in the order of ``queries``."""
        values: dict[str, Any] = asdict(self)
        return json.dumps(values, indent=1, allow_nan=False)

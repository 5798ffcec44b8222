"""The measurements of a run as a tree of values, written as JSON."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from gpurerank.models.hardware import Hardware

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class MatrixRate:
    """The best rate of several products (rows, inner) x (inner, columns)."""

    dtype: str
    rows: int
    inner: int
    columns: int
    giga_operations_s: float


@dataclass(frozen=True, slots=True)
class Timing:
    """The rounds of one contender in one measurement, in milliseconds, in the order they ran."""

    contender: str
    times_ms: list[float]

    @property
    def median_ms(self) -> float:
        """The median of all rounds."""
        return statistics.median(self.times_ms)


@dataclass(frozen=True, slots=True)
class ContenderRecord:
    """A contender, how it is set up, and the number format it multiplies in."""

    name: str
    setting: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a contender's scores, in [0, 1], compare with those of the float32 reference."""

    contender: str
    max_difference: float
    rank_correlation: float
    same_top: bool
    tolerance: float
    agrees: bool


@dataclass(frozen=True, slots=True)
class LatencyCell:
    """The latency of every contender for one number of candidates and one kind of lengths.

    ``tokens`` counts all pairs of a round including special tokens. ``operations`` and
    ``floor_ms``, the least time the device can take for them, are None for an architecture
    without a formula. ``skipped_s`` is the estimate for a measurement that was too long to run.
    """

    lengths: str
    candidates: int
    tokens: float = 0.0
    operations: float | None = None
    floor_ms: float | None = None
    timings: list[Timing] = field(default_factory=list)
    skipped_s: float | None = None


@dataclass(slots=True)
class ModelRecord:
    """The measurements of one model. ``weights`` is "real" or "random"."""

    name: str
    weights: str = "real"
    tokenizer: str = "its own"
    contenders: list[ContenderRecord] = field(default_factory=list)
    rates: list[MatrixRate] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    latency: list[LatencyCell] = field(default_factory=list)

    def disagreeing(self) -> set[str]:
        """Names of the contenders whose scores differ from the reference."""
        return {result.contender for result in self.agreement if not result.agrees}


@dataclass(slots=True)
class BenchReport:
    """One run, filled while it goes on, so that an interrupted run keeps its results.

    ``command`` holds the options without paths of this machine, ``notes`` what was left out.
    """

    created_at: str
    command: dict[str, str]
    hardware: Hardware
    versions: dict[str, str]
    device: str
    models: list[ModelRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    schema_version: int = SCHEMA_VERSION

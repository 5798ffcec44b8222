"""What the sections of the benchmark find: values, every round among them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from gpurerank.benchmark.rounds import p95


@dataclass(frozen=True, slots=True)
class MatrixRate:
    """The best rate of several products (rows, inner) x (inner, columns), in 10^9 a second."""

    dtype: str
    rows: int
    inner: int
    columns: int
    giga_operations_s: float


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender in one cell: every round, in milliseconds, in the order they ran."""

    contender: str
    times_ms: list[float]

    @property
    def median_ms(self) -> float:
        """The middle of all rounds."""
        return statistics.median(self.times_ms)

    @property
    def p95_ms(self) -> float | None:
        """The 95th percentile; None under 20 rounds, which cannot tell it."""
        return p95(self.times_ms)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that the search for the best one tried."""

    dtype: str
    batch_size: int
    pairs: int
    time_ms: float


@dataclass(frozen=True, slots=True)
class ContenderRecord:
    """A contender as it was set up."""

    name: str
    setting: str
    dtype: str
    searched: list[Setting] = field(default_factory=list)


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
    """One table cell for every contender: so many candidates of such lengths.

    Attributes:
        tokens: Of all pairs of one round, special tokens included; mean of the rounds.
        operations: Multiplications and additions of one round; None for an unknown architecture.
        floor_ms: ``operations`` at the device's best measured rate in any format used.
        skipped_s: What it would have taken, where it was skipped.
    """

    lengths: str
    candidates: int
    tokens: float = 0.0
    operations: float | None = None
    floor_ms: float | None = None
    timings: list[Timing] = field(default_factory=list)
    skipped_s: float | None = None


@dataclass(frozen=True, slots=True)
class ConcurrencyCell:
    """Callers at the same time, each with passages of its own.

    Attributes:
        way: How the pairs reached the model.
        wall_s: One value a round, from the first start to the last answer.
        caller_ms: One value a call, of all rounds.
    """

    way: str
    callers: int
    pairs: int
    tokens: int
    wall_s: list[float] = field(default_factory=list)
    caller_ms: list[float] = field(default_factory=list)
    skipped_s: float | None = None


@dataclass(frozen=True, slots=True)
class BesideRecord:
    """Small callers alone, and with one large caller at their side."""

    callers: int
    pairs_beside: int
    alone_ms: list[float] = field(default_factory=list)
    beside_ms: list[float] = field(default_factory=list)
    skipped_s: float | None = None

    @property
    def p95_ratio(self) -> float | None:
        """How many times longer the 95th percentile is beside the large caller."""
        alone, beside = p95(self.alone_ms), p95(self.beside_ms)
        return beside / alone if alone and beside else None


@dataclass(frozen=True, slots=True)
class SplitRecord:
    """The same texts in one call and in many, in seconds, one value a round."""

    candidates: int
    calls: int
    one_call_s: list[float] = field(default_factory=list)
    many_calls_s: list[float] = field(default_factory=list)
    skipped_s: float | None = None


@dataclass(frozen=True, slots=True)
class PeakRecord:
    """Peak memory of one call over what stood before it."""

    candidates: int
    kind: str
    growth_bytes: int = 0
    skipped_s: float | None = None


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory at a time of the soak; ``gpu_bytes`` is what torch has allocated."""

    at_s: float
    resident_bytes: int
    gpu_bytes: int


@dataclass(frozen=True, slots=True)
class SoakRecord:
    """Mixed calls over a long time. Growth is from the first fifth's end to the last tenth."""

    seconds: float
    calls: int
    pairs: int
    errors: int
    first_error: str
    resident_growth_percent: float | None
    gpu_growth_percent: float | None
    samples: list[MemorySample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OverheadRecord:
    """A plugin's time over the core's for the same documents, with a scorer that does nothing."""

    plugin: str
    documents: int
    core: Timing
    through_plugin: Timing

    @property
    def added_ms(self) -> float:
        """The difference of the medians."""
        return self.through_plugin.median_ms - self.core.median_ms


@dataclass(frozen=True, slots=True)
class OverloadRecord:
    """More requests than the server can answer, sent at a steady rate.

    Attributes:
        queued_s: Work that the server lets wait.
        goodput_per_s: Requests answered with 200 a second, to the last such answer.
        without_retry_after: Of those refused with 429.
        other_statuses: Neither 200 nor 429.
        growth_percent: Of the server's resident memory; None where it is not told.
        recovered_s: From the last answer until single requests take their usual time again.
    """

    seconds: float
    queued_s: float
    offered_per_s: float
    peak_per_s: float
    goodput_per_s: float
    sent: int
    accepted: int
    refused: int
    without_retry_after: int
    other_statuses: int
    accepted_p95_ms: float | None
    refused_p95_ms: float | None
    growth_percent: float | None
    recovered_s: float | None


@dataclass(slots=True)
class HttpRecord:
    """The same load on the model in this process and on the server, in seconds, one a round.

    Attributes:
        pairs: Of one round.
        http_ms: One value a request, of all rounds.
    """

    connections: int
    passages: int
    pairs: int = 0
    in_process_s: list[float] = field(default_factory=list)
    http_s: list[float] = field(default_factory=list)
    http_ms: list[float] = field(default_factory=list)
    overload: OverloadRecord | None = None
    skipped_s: float | None = None

    @property
    def share(self) -> float:
        """The server's throughput over the model's in this process."""
        return statistics.median(self.in_process_s) / statistics.median(self.http_s)


@dataclass(slots=True)
class RayRecord:
    """One call on the model in this process and on a pool of actors, in seconds, one a round.

    Attributes:
        pairs: Of a call.
        replicas: Actors.
        started_s: Until cluster and models are there; in no round.
        largest_difference: Between two scores of a pair.
    """

    pairs: int
    replicas: int
    in_process_s: list[float] = field(default_factory=list)
    ray_s: list[float] = field(default_factory=list)
    started_s: float | None = None
    largest_difference: float = 0.0
    skipped_s: float | None = None

    @property
    def overhead(self) -> float:
        """What Ray takes more than this process, as a share of that."""
        return statistics.median(self.ray_s) / statistics.median(self.in_process_s) - 1

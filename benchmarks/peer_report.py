"""The measurements of a run of ``python -m benchmarks``, as JSON and back."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field

from benchmarks.json_decoding import decode
from gpurerank.benchmark.bench_report import (
    SCHEMA_VERSION,
    BenchReport,
    ContenderRecord,
    ModelRecord,
    Timing,
)
from gpurerank.errors import DataError


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that a search for the fastest one has tried."""

    dtype: str
    batch_size: int
    pairs: int
    time_ms: float


@dataclass(frozen=True, slots=True)
class PeerContenderRecord(ContenderRecord):
    """A contender, and the settings that were tried to find its own."""

    searched: list[Setting] = field(default_factory=list)


@dataclass(slots=True)
class ConcurrencyCell:
    """The throughput of concurrent callers of one contender.

    ``way`` says how the pairs reach the model; ``pairs`` and ``tokens`` are of one round.
    ``wall_s`` has a value per round, from the first start to the last result, ``caller_ms`` one
    per call. ``skipped_s`` is the estimate for a measurement that was too long to run.
    """

    way: str
    callers: int
    pairs: int
    tokens: int
    wall_s: list[float] = field(default_factory=list)
    caller_ms: list[float] = field(default_factory=list)
    skipped_s: float | None = None


@dataclass(slots=True)
class InterferenceRecord:
    """Waits of small callers alone, and while another caller has a large call in flight."""

    callers: int
    pairs_beside: int
    alone_ms: list[float] = field(default_factory=list)
    beside_ms: list[float] = field(default_factory=list)
    skipped_s: float | None = None


@dataclass(slots=True)
class SplitRecord:
    """The same passages in one call and in many, in seconds, one value per round."""

    candidates: int
    calls: int
    one_call_s: list[float] = field(default_factory=list)
    many_calls_s: list[float] = field(default_factory=list)
    skipped_s: float | None = None


@dataclass(frozen=True, slots=True)
class PeakRecord:
    """Peak memory of one call over the memory before it."""

    candidates: int
    kind: str
    growth_bytes: int = 0
    skipped_s: float | None = None


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory at one time of a soak test; ``gpu_bytes`` is what torch has allocated."""

    at_s: float
    resident_bytes: int
    gpu_bytes: int


@dataclass(frozen=True, slots=True)
class SoakRecord:
    """Mixed calls for a long time. Growth is from the end of the first fifth to the last tenth."""

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
    """The time of a plugin and of the core for the same documents, with a scorer that is free."""

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
    """More requests than the server can answer, sent at a constant rate.

    Attributes:
        seconds: Duration of the load.
        queued_s: Seconds of work that the server lets wait.
        offered_per_s: Requests sent per second.
        peak_per_s: Requests per second that the server answered before.
        goodput_per_s: Requests answered with 200 per second, up to the last such response.
        sent: Requests sent.
        accepted: Requests answered with 200.
        refused: Requests answered with 429.
        without_retry_after: Responses of 429 without the header Retry-After.
        other_statuses: Responses that are neither 200 nor 429.
        accepted_p95_ms: Of responses of 200.
        refused_p95_ms: Of responses of 429.
        growth_percent: Growth of the server's resident memory; None without psutil.
        recovered_s: From the last response until single requests take their usual time again;
            None if they did not.
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
    """The same load on the model in this process and on a server, in seconds, one per round.

    ``pairs`` is of one round; ``http_ms`` has a value per request.
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
        """The server's throughput as a share of the throughput in this process."""
        return statistics.median(self.in_process_s) / statistics.median(self.http_s)


@dataclass(slots=True)
class RayRecord:
    """One call on the model in this process and on a pool of Ray actors, in seconds, per round.

    ``started_s`` is the time until cluster and models are ready, which no round includes.
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
        """The extra time of Ray as a share of the time in this process."""
        return statistics.median(self.ray_s) / statistics.median(self.in_process_s) - 1


@dataclass(slots=True)
class PeerModelRecord(ModelRecord):
    """All measurements of one model."""

    contenders: list[PeerContenderRecord] = field(default_factory=list)  # type: ignore[assignment]
    concurrency: list[ConcurrencyCell] = field(default_factory=list)
    beside: InterferenceRecord | None = None
    split: SplitRecord | None = None
    peaks: list[PeakRecord] = field(default_factory=list)
    soak: SoakRecord | None = None
    http: HttpRecord | None = None
    ray: RayRecord | None = None


@dataclass(slots=True)
class PeerReport(BenchReport):
    """A run with the measurements that the package itself does not make."""

    models: list[PeerModelRecord] = field(default_factory=list)  # type: ignore[assignment]
    bandwidth_giga_bytes_s: float = 0.0
    overhead: list[OverheadRecord] = field(default_factory=list)

    def to_json(self) -> str:
        """The report as indented JSON."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> PeerReport:
        """Reads a report of this or an earlier release.

        Raises:
            DataError: The text is not a report, has another schema version, or a field of another
                type.
        """
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"the report is not JSON: {error}") from error
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(f"the report has schema version {version}, expected {SCHEMA_VERSION}")
        return decode(cls, value, "report")

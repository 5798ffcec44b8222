"""A whole run as one tree of values, written as JSON and read back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from gpurerank.benchmark.decoding import decode
from gpurerank.benchmark.records import (
    Agreement,
    BesideRecord,
    ConcurrencyCell,
    ContenderRecord,
    HttpRecord,
    LatencyCell,
    MatrixRate,
    OverheadRecord,
    PeakRecord,
    RayRecord,
    SoakRecord,
    SplitRecord,
)
from gpurerank.errors import DataError
from gpurerank.models.hardware import Hardware

SCHEMA_VERSION = 1


@dataclass(slots=True)
class ModelRecord:
    """All that was measured with one model."""

    name: str
    weights: str
    tokenizer: str
    contenders: list[ContenderRecord] = field(default_factory=list)
    rates: list[MatrixRate] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    latency: list[LatencyCell] = field(default_factory=list)
    concurrency: list[ConcurrencyCell] = field(default_factory=list)
    beside: BesideRecord | None = None
    split: SplitRecord | None = None
    peaks: list[PeakRecord] = field(default_factory=list)
    soak: SoakRecord | None = None
    http: HttpRecord | None = None
    ray: RayRecord | None = None

    def disagreeing(self) -> set[str]:
        """The contenders whose scores are not those of the reference."""
        return {found.contender for found in self.agreement if not found.agrees}


@dataclass(slots=True)
class Report:
    """A whole run; filled as it goes, so that an interrupted one holds what was measured."""

    created_at: str
    command: dict[str, str]
    hardware: Hardware
    versions: dict[str, str]
    device: str
    bandwidth_giga_bytes_s: float = 0.0
    models: list[ModelRecord] = field(default_factory=list)
    overhead: list[OverheadRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The report as indented JSON.

        Raises:
            DataError: What was written does not read back as the same report.
        """
        written = json.dumps(asdict(self), indent=1, allow_nan=False)
        if Report.from_json(written) != self:
            raise DataError("the benchmark's report does not read back as it was written")
        return written

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Reads a report.

        Raises:
            DataError: It is no report, of another schema version, or a field has another type.
        """
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"the report is no JSON: {error}") from error
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(f"the report has schema version {version}, expected {SCHEMA_VERSION}")
        return decode(cls, value, "report")

"""A batch: what a model must offer to run it, and whose call fails when it fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gpurerank.engine.job import Item, Job
from gpurerank.errors import DeviceError, OutOfMemoryError, ScoringError
from gpurerank.types import Rows

if TYPE_CHECKING:
    from gpurerank.models.packing import Tokens


class BatchModel(Protocol):
    """What an engine runs: ``tokenize`` and ``prepare`` on the feeder, ``run`` on the lanes."""

    @property
    def max_length(self) -> int:
        """Tokens that an item may have."""
        ...

    @property
    def tokens_per_batch(self) -> tuple[int, int]:
        """The fewest tokens that use the device well, and the most that a batch may have."""
        ...

    @property
    def lanes(self) -> int:
        """Batches that may run at the same time, each on a thread of its own."""
        ...

    def enter_lane(self) -> None:
        """Sets up the calling thread before its first batch."""
        ...

    def tokenize(self, items: Sequence[Item]) -> list[Any]:
        """Token ids of each item."""
        ...

    def prepare(self, items: Sequence[Item], tokens: Sequence[Any]) -> Any:
        """Lays a batch out in host memory."""
        ...

    def run(self, batch: Any) -> Rows:
        """One row for each item of a prepared batch."""
        ...


class Entry:
    """One tokenized item of a job.

    Attributes:
        job: The job.
        index: Position of the item in the job.
        tokens: Its tokens.
    """

    __slots__ = ("index", "job", "tokens")

    def __init__(self, job: Job, index: int, tokens: Tokens) -> None:
        self.job = job
        self.index = index
        self.tokens = tokens


def count_tokens(entries: Sequence[Entry]) -> int:
    """Tokens of all entries together."""
    return sum(entry.tokens.length for entry in entries)


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries of any jobs, prepared to run together.

    Attributes:
        entries: What it runs.
        tokens: Tokens of all entries.
        prepared: What the model made of them, or the exception that it raised.
    """

    entries: list[Entry]
    tokens: int
    prepared: Any

    @property
    def padding(self) -> int:
        """Padding tokens, where the model reports them."""
        blocks = self.prepared if isinstance(self.prepared, list) else [self.prepared]
        return sum(int(getattr(block, "padding", 0)) for block in blocks)

    @classmethod
    def of(cls, model: BatchModel, entries: list[Entry]) -> Batch:
        """Prepares entries; an error is kept for ``run_batch``, which finds out whose it is."""
        try:
            items = [entry.job.items[entry.index] for entry in entries]
            prepared = model.prepare(items, [entry.tokens for entry in entries])
        except Exception as error:
            prepared = _without_traceback(error)
        return cls(entries, count_tokens(entries), prepared)


def run_batch(model: BatchModel, batch: Batch) -> Exception | None:
    """Runs a batch and delivers its results; a batch that fails is tried again in halves.

    Only the job whose item fails by itself fails.

    Returns:
        What the whole batch failed with; None if it ran at once.

    Raises:
        DeviceError: The device is lost, so trying again is useless.
    """
    failure = _try_batch(model, batch)
    if failure is None:
        return None
    entries = batch.entries
    if len(entries) == 1:
        entries[0].job.fail(_item_error(failure, entries[0].index))
        return failure
    middle = len(entries) // 2
    for half in (entries[:middle], entries[middle:]):
        pending = [entry for entry in half if not entry.job.ended]
        if pending:
            run_batch(model, Batch.of(model, pending))
    return failure


def _try_batch(model: BatchModel, batch: Batch) -> Exception | None:
    started = time.perf_counter()
    try:
        if isinstance(batch.prepared, Exception):
            raise batch.prepared
        rows = model.run(batch.prepared)
        if len(rows) != len(batch.entries):
            raise ScoringError(f"the model gave {len(rows)} results for {len(batch.entries)} items")
    except DeviceError:
        raise
    except Exception as error:
        return _without_traceback(error)
    _deliver(batch.entries, rows, (started, time.perf_counter()))
    return None


def _without_traceback(error: Exception) -> Exception:
    """The error and its causes without tracebacks, which would keep the batch's tensors alive."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error


def _deliver(entries: Sequence[Entry], rows: Rows, interval: tuple[float, float]) -> None:
    rows_by_job: dict[Job, list[int]] = {}
    for row, entry in enumerate(entries):
        rows_by_job.setdefault(entry.job, []).append(row)
    for job, job_rows in rows_by_job.items():
        job_entries = [entries[row] for row in job_rows]
        job.deliver(
            [entry.index for entry in job_entries],
            rows[job_rows],
            interval=interval,
            tokens=count_tokens(job_entries),
        )


def _item_error(error: Exception, index: int) -> ScoringError:
    if isinstance(error, OutOfMemoryError):
        return OutOfMemoryError(
            f"item {index} alone does not fit into memory; lower max_length or use a smaller model"
        )
    wrapped = ScoringError(f"the model failed on item {index}: {error}")
    wrapped.__cause__ = error
    return wrapped

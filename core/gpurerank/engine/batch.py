"""One batch: what a model must offer to run it, and who pays when it fails."""

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
    """What an engine runs: ``tokenize`` and ``prepare`` on one thread, ``run`` on others."""

    @property
    def max_length(self) -> int:
        """Tokens that an item may have."""
        ...

    @property
    def tokens_per_batch(self) -> tuple[int, int]:
        """Tokens below which a batch uses the device badly, and the most that it may have."""
        ...

    @property
    def lanes(self) -> int:
        """Batches that may run at the same time, each on a thread of its own."""
        ...

    def enter_lane(self) -> None:
        """Sets up the thread that calls, before its first batch."""
        ...

    def tokenize(self, items: Sequence[Item]) -> list[Any]:
        """Token ids of each item."""
        ...

    def prepare(self, items: Sequence[Item], tokens: Sequence[Any]) -> Any:
        """A batch, laid out on the host."""
        ...

    def run(self, batch: Any) -> Rows:
        """One row for each item of a batch."""
        ...


class Entry:
    """One item of a job, ready to run."""

    __slots__ = ("job", "place", "tokens")

    def __init__(self, job: Job, place: int, tokens: Tokens) -> None:
        self.job = job
        self.place = place
        self.tokens = tokens


def tokens_in(entries: Sequence[Entry]) -> int:
    """Tokens that entries have together."""
    return sum(entry.tokens.length for entry in entries)


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries of any jobs, laid out.

    Attributes:
        entries: What is in it.
        tokens: Tokens that they have.
        prepared: What the model made of them, or why it could not.
    """

    entries: list[Entry]
    tokens: int
    prepared: Any

    @property
    def padding(self) -> int:
        """Tokens that only fill it up, where the model says so."""
        blocks = self.prepared if isinstance(self.prepared, list) else [self.prepared]
        return sum(int(getattr(block, "padding", 0)) for block in blocks)

    @classmethod
    def of(cls, model: BatchModel, entries: list[Entry]) -> Batch:
        """Lays entries out; an error is kept for ``execute``, which finds out whose it is."""
        try:
            items = [entry.job.items[entry.place] for entry in entries]
            prepared = model.prepare(items, [entry.tokens for entry in entries])
        except Exception as error:
            prepared = _bare(error)
        return cls(entries, tokens_in(entries), prepared)


def execute(model: BatchModel, batch: Batch) -> Exception | None:
    """Runs a batch and hands its results out; what fails is tried again in halves.

    So only the job of the entry that fails alone fails. Returns what the whole batch failed with.

    Raises:
        DeviceError: Trying again is of no use.
    """
    failure = _attempt(model, batch)
    if failure is None:
        return None
    entries = batch.entries
    if len(entries) == 1:
        entries[0].job.fail(_of_item(failure, entries[0].place))
        return failure
    middle = len(entries) // 2
    for half in (entries[:middle], entries[middle:]):
        alive = [entry for entry in half if not entry.job.ended]
        if alive:
            execute(model, Batch.of(model, alive))
    return failure


def _attempt(model: BatchModel, batch: Batch) -> Exception | None:
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
        return _bare(error)
    _deliver(batch.entries, rows, (started, time.perf_counter()))
    return None


def _bare(error: Exception) -> Exception:
    """The error without tracebacks, which hold the tensors of the batch that failed."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def _deliver(entries: Sequence[Entry], rows: Rows, ran: tuple[float, float]) -> None:
    of_job: dict[Job, list[int]] = {}
    for row, entry in enumerate(entries):
        of_job.setdefault(entry.job, []).append(row)
    for job, found in of_job.items():
        own = [entries[row] for row in found]
        job.put([e.place for e in own], rows[found], ran=ran, tokens=tokens_in(own))


def _of_item(error: Exception, place: int) -> ScoringError:
    if isinstance(error, OutOfMemoryError):
        return OutOfMemoryError(
            f"item {place} alone does not fit into memory; lower max_length or use a smaller model"
        )
    wrapped = ScoringError(f"the model failed on item {place}: {error}")
    wrapped.__cause__ = error
    return wrapped

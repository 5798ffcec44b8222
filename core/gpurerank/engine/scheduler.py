"""The order of waiting jobs: deficit round robin, weighted in tokens.

Each job in turn may fill a quantum of tokens and keeps what it leaves unused for its next turn; a
job whose remaining items fit into the batch is finished at once. So a job of 10 passages does not
wait for one of 10,000, and no job waits forever. Source: Shreedhar and Varghese, SIGCOMM 1995.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gpurerank.engine.batch import Entry, count_tokens
from gpurerank.engine.job import Item, Job
from gpurerank.errors import ScoringError

if TYPE_CHECKING:
    from gpurerank.models.packing import Tokens

# Items tokenized together: few enough that other jobs wait only milliseconds, many enough that
# sorting them by length is worth it.
ITEMS_PER_SLICE = 256

Tokenize = Callable[[Sequence[Item]], "list[Tokens]"]


class _WaitingJob:
    """A job that is tokenized slice by slice; within a slice the longest items go first.

    Attributes:
        job: The job.
        tokenized: Items tokenized so far.
        ready: Tokenized entries that are in no batch yet, ascending by length.
        ready_tokens: Their tokens.
        deficit: Tokens that the job may still fill in its turn.
    """

    __slots__ = ("deficit", "job", "ready", "ready_tokens", "tokenized")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tokenized = 0
        self.ready: list[Entry] = []
        self.ready_tokens = 0
        self.deficit = 0

    @property
    def is_tokenized(self) -> bool:
        """Whether every item is tokenized."""
        return self.tokenized >= len(self.job.items)

    @property
    def is_exhausted(self) -> bool:
        """Whether every item has been taken."""
        return not self.ready and self.is_tokenized

    def tokenize_slice(self, tokenize: Tokenize) -> None:
        """Tokenizes the next slice once the last one is used up."""
        if self.ready or self.is_tokenized:
            return
        started = time.perf_counter()
        items = self.job.items[self.tokenized : self.tokenized + ITEMS_PER_SLICE]
        entries = [
            Entry(self.job, index, tokens)
            for index, tokens in enumerate(tokenize(items), self.tokenized)
        ]
        for entry in entries:
            self.job.truncated[entry.index] = entry.tokens.truncated
            self.job.lengths[entry.index] = entry.tokens.length
        self.tokenized += len(entries)
        # Entries are taken from the end, so the longest is last.
        self.ready = sorted(entries, key=_length)
        self.ready_tokens = count_tokens(entries)
        self.job.tokenize_ms += (time.perf_counter() - started) * 1000.0

    def take(self, room: int) -> list[Entry]:
        """Entries that fit into ``room`` and the job's deficit, longest first, at least one."""
        finishes = self.is_tokenized and self.ready_tokens <= room
        allowed = room if finishes else self.deficit
        taken: list[Entry] = []
        used = 0
        while self.ready:
            limit = min(room, allowed) if taken else room
            index = bisect_right(self.ready, limit - used, key=_length) - 1
            if index < 0:
                break
            taken.append(self.ready.pop(index))
            used += taken[-1].tokens.length
        self.ready_tokens -= used
        self.deficit = max(0, self.deficit - used)
        return taken


def _length(entry: Entry) -> int:
    return entry.tokens.length


class Scheduler:
    """The waiting jobs in their turns. Used by the feeder's thread alone.

    Args:
        tokenize: Token ids of items.
    """

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._waiting: deque[_WaitingJob] = deque()
        # The job whose turn was interrupted because the last batch was full.
        self._interrupted: _WaitingJob | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int | None:
        """Tokens of items that are in no batch yet; None while some are not tokenized."""
        if not all(waiting.is_tokenized for waiting in self._waiting):
            return None
        return sum(waiting.ready_tokens for waiting in self._waiting)

    def add(self, job: Job) -> None:
        """Appends a job; its turn comes after those that wait already."""
        self._waiting.append(_WaitingJob(job))

    def tokenize(self, room: int, quantum: int) -> None:
        """Tokenizes what ``take`` may need; a job that cannot be tokenized fails.

        Jobs that have ended, or whose deadline has passed, are dropped.

        Args:
            room: Tokens that are free in the batches to come.
            quantum: Tokens that a job may fill in one turn.
        """
        self._waiting = deque(waiting for waiting in self._waiting if not waiting.job.expire())
        for waiting in list(self._waiting):
            if room <= 0:
                break
            try:
                waiting.tokenize_slice(self._tokenize)
            # A panic of the tokenizers library is a BaseException, not an Exception.
            except BaseException as error:
                failure = error if isinstance(error, Exception) else ScoringError(str(error))
                waiting.job.fail(failure)
                self._waiting.remove(waiting)
                continue
            room -= min(waiting.ready_tokens, quantum)

    def take(self, room: int, quantum: int, *, may_exceed: bool = True) -> list[Entry]:
        """Takes tokenized entries for a batch of at most ``room`` tokens.

        Args:
            room: Tokens that are free in the batch.
            quantum: Tokens that a job may fill in one turn.
            may_exceed: Whether one entry may be taken although it alone is over ``room``.
        """
        batch: list[Entry] = []
        while self._waiting and self._waiting[0].ready:
            waiting = self._waiting[0]
            if waiting is not self._interrupted:
                waiting.deficit += quantum
            self._interrupted = None
            longest = waiting.ready[-1].tokens.length
            taken = waiting.take(max(room, longest) if may_exceed and not batch else room)
            batch += taken
            room -= count_tokens(taken)
            if waiting.ready and (not taken or waiting.ready[0].tokens.length <= waiting.deficit):
                # The batch is full before the turn is over: the turn goes on in the next batch.
                self._interrupted = waiting
                break
            self._waiting.popleft()
            if not waiting.is_exhausted:
                self._waiting.append(waiting)
        return batch

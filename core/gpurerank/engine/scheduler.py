"""Who comes next: deficit round robin over the waiting jobs, weighted in tokens.

Each job in turn may fill a quantum of tokens; what it leaves unused it keeps for its next turn, and
a job whose rest fits into the batch is finished at once. So a job of 10 passages does not wait for
one of 10,000, and no job waits forever. Source: Shreedhar and Varghese, SIGCOMM 1995.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gpurerank.engine.batch import Entry
from gpurerank.engine.job import Item, Job
from gpurerank.errors import ScoringError

if TYPE_CHECKING:
    from gpurerank.models.packing import Tokens

# Tokenized together: few enough that others wait some milliseconds, many enough to sort by length.
ITEMS_PER_SLICE = 256

Tokenize = Callable[[Sequence[Item]], "list[Tokens]"]


class _Turn:
    """A waiting job, tokenized slice by slice, the longest of a slice first."""

    __slots__ = ("deficit", "job", "ready", "ready_tokens", "unread")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.unread = 0
        self.ready: list[Entry] = []
        self.ready_tokens = 0
        self.deficit = 0

    def read(self, tokenize: Tokenize) -> None:
        """Tokenizes the next slice once the last one is used up."""
        if self.ready or self.unread >= len(self.job.items):
            return
        started = time.perf_counter()
        some = self.job.items[self.unread : self.unread + ITEMS_PER_SLICE]
        entries = [
            Entry(self.job, place, tokens)
            for place, tokens in enumerate(tokenize(some), self.unread)
        ]
        for entry in entries:
            self.job.truncated[entry.place] = entry.tokens.truncated
        self.unread += len(entries)
        # Taken from the end, so the longest is last.
        self.ready = sorted(entries, key=_length)
        self.ready_tokens = sum(entry.tokens.length for entry in entries)
        self.job.tokenize_ms += (time.perf_counter() - started) * 1000.0

    @property
    def exhausted(self) -> bool:
        """Every item has been taken."""
        return not self.ready and self.unread >= len(self.job.items)

    def take(self, room: int) -> list[Entry]:
        """Entries that fit into ``room`` and that the turn allows, longest first, at least one."""
        finishes = self.unread >= len(self.job.items) and self.ready_tokens <= room
        allowed = room if finishes else self.deficit
        taken: list[Entry] = []
        used = 0
        while self.ready:
            limit = min(room, allowed) if taken else room
            place = bisect_right(self.ready, limit - used, key=_length) - 1
            if place < 0:
                break
            taken.append(self.ready.pop(place))
            used += taken[-1].tokens.length
        self.ready_tokens -= used
        self.deficit = max(0, self.deficit - used)
        return taken


def _length(entry: Entry) -> int:
    return entry.tokens.length


class Scheduler:
    """The waiting jobs. Used by one thread.

    Args:
        tokenize: Token ids of items.
    """

    def __init__(self, tokenize: Tokenize) -> None:
        self._tokenize = tokenize
        self._turns: deque[_Turn] = deque()
        # The job whose turn the last batch ended in, by its size alone.
        self._open: _Turn | None = None

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def waiting_tokens(self) -> int | None:
        """Tokens of what has not been taken; None while some of it is not tokenized."""
        if any(turn.unread < len(turn.job.items) for turn in self._turns):
            return None
        return sum(turn.ready_tokens for turn in self._turns)

    def add(self, job: Job) -> None:
        """Lets a job wait for its turn."""
        self._turns.append(_Turn(job))

    def read(self, room: int, quantum: int) -> None:
        """Tokenizes what ``take`` may need; a job that cannot be read fails.

        Jobs that have ended, or whose deadline has passed, are dropped.
        """
        self._turns = deque(turn for turn in self._turns if not turn.job.expire())
        for turn in list(self._turns):
            if room <= 0:
                break
            try:
                turn.read(self._tokenize)
            # Also what a tokenizer panics with, which is no Exception.
            except BaseException as error:
                failure = error if isinstance(error, Exception) else ScoringError(str(error))
                turn.job.fail(failure)
                self._turns.remove(turn)
                continue
            room -= min(turn.ready_tokens, quantum)

    def take(self, room: int, quantum: int, *, may_exceed: bool = True) -> list[Entry]:
        """Entries for a batch of at most ``room`` tokens, of what has been read.

        Args:
            room: Tokens that are still free in the batch.
            quantum: Tokens that a job may fill in one turn.
            may_exceed: Whether one entry may be taken although it alone is over ``room``.
        """
        batch: list[Entry] = []
        while self._turns and self._turns[0].ready:
            turn = self._turns[0]
            if turn is not self._open:
                turn.deficit += quantum
            self._open = None
            longest = turn.ready[-1].tokens.length
            taken = turn.take(max(room, longest) if may_exceed and not batch else room)
            batch += taken
            room -= sum(entry.tokens.length for entry in taken)
            if turn.ready and (not taken or turn.ready[0].tokens.length <= turn.deficit):
                # The batch is full before the turn is over: it goes on in the next batch.
                self._open = turn
                break
            self._turns.popleft()
            if not turn.exhausted:
                self._turns.append(turn)
        return batch

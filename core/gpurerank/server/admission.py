"""Admission control: what can be answered in time is let in, the rest is told when to retry."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gpurerank.server.refusal import Refusal


@dataclass(slots=True, eq=False)
class Work:
    """The estimated work of one request.

    Attributes:
        tokens: Tokens of all pairs or texts.
        seconds: Time that they take where batches are full and nothing else runs.
        remaining: Share that is not done yet, in [0, 1].
    """

    tokens: float
    seconds: float
    remaining: float = 1.0

    def report(self, done: int, total: int) -> None:
        """Takes note of progress; a model that begins later never adds to what remains."""
        self.remaining = min(self.remaining, 1.0 - done / max(1, total))


class Admission:
    """Admits a request as a whole while what waits can be done within ``queued_s``.

    Belongs to one event loop.

    Args:
        queued_s: Work that may wait, in seconds.
    """

    def __init__(self, queued_s: float) -> None:
        self._queued_s = queued_s
        self._admitted: list[Work] = []

    @property
    def queued_tokens(self) -> int:
        """Estimated tokens of admitted requests that have not run yet."""
        return math.ceil(sum(work.tokens * work.remaining for work in self._admitted))

    @contextmanager
    def admitted(self, work: Work) -> Iterator[None]:
        """Counts a request while its body runs. Where nothing waits, one of any size is let in.

        Raises:
            Refusal: Too much waits already.
        """
        self._check(work)
        self._admitted.append(work)
        try:
            yield
        finally:
            self._admitted.remove(work)

    def _check(self, work: Work) -> None:
        # Models serve requests in turns by tokens: of a larger request as much runs first as the
        # new one has itself.
        left_s = [other.seconds * other.remaining for other in self._admitted]
        ahead_s = sum(min(work.seconds, other_s) for other_s in left_s)
        excess_s = ahead_s + work.seconds - self._queued_s
        if ahead_s > 0 and excess_s > 0:
            # After ahead_s nothing waits, and even what is larger than the whole queue is let in.
            retry_s = max(1, math.ceil(round(min(excess_s, ahead_s), 3)))
            raise Refusal(
                429,
                f"{self.queued_tokens:,} tokens are waiting, {sum(left_s):,.1f} s of work; try"
                f" again in {retry_s} s",
                "overloaded",
                retry_after_s=retry_s,
            )

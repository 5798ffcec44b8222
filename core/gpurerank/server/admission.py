"""Who is let in: as much as can be answered in time, the rest is told when to come again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpurerank.server.refusal import Refusal

# Texts of a language have four characters a token; only the ratio of queue and rate counts.
_CHARS_PER_TOKEN = 4
# Until something was measured.
_FIRST_RATE = 2_000.0
_MEMORY_S = 5.0


class Admission:
    """Admits a request as a whole while what waits can be done within ``queued_s``.

    Belongs to one event loop. Tokens are estimated from characters, for the queue and for the
    rate alike, so that an error of the estimate cancels out.

    Args:
        queued_s: Work that may wait, in seconds.
        clock: Seconds that never go back.

    Attributes:
        queued_tokens: Estimated tokens of what is admitted and not answered.
        tokens_per_s: Measured while there was work.
    """

    def __init__(self, queued_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.queued_tokens = 0
        self.tokens_per_s = _FIRST_RATE
        self._waiting: list[int] = []
        self._queued_s = queued_s
        self._clock = clock
        self._busy_since: float | None = None
        self._done = 0
        self._busy_s = 0.0

    @contextmanager
    def admitted(self, tokens: int) -> Iterator[None]:
        """Counts a request while its body runs; what was cancelled measures nothing.

        A request is let in whatever its size where nothing waits.

        Raises:
            Refusal: Too much waits already.
        """
        self._check(tokens)
        if self.queued_tokens == 0:
            self._busy_since = self._clock()
        self.queued_tokens += tokens
        self._waiting.append(tokens)
        answered = False
        try:
            yield
            answered = True
        finally:
            self.queued_tokens -= tokens
            self._waiting.remove(tokens)
            self._measure(tokens if answered else 0)

    def _check(self, tokens: int) -> None:
        # Models serve in turns by tokens: of a larger request it waits for as much as its own.
        ahead = sum(min(tokens, other) for other in self._waiting)
        over_s = (ahead + tokens) / self.tokens_per_s - self._queued_s
        if ahead and over_s > 0:
            # When nothing waits, even what is larger than the whole queue is let in.
            retry_s = max(1, math.ceil(min(over_s, ahead / self.tokens_per_s)))
            raise Refusal(
                429,
                f"{self.queued_tokens:,} tokens wait already; try again in {retry_s} s",
                "overloaded",
                retry_after_s=retry_s,
            )

    def _measure(self, tokens: int) -> None:
        now = self._clock()
        assert self._busy_since is not None
        self._busy_s += now - self._busy_since
        self._busy_since = now if self.queued_tokens else None
        self._done += tokens
        if self._done and self._busy_s > 0:
            self.tokens_per_s = max(1.0, self._done / self._busy_s)
        if self._busy_s > _MEMORY_S:
            # Half as heavy each time, so that the rate follows the last seconds.
            self._busy_s /= 2
            self._done //= 2


def estimated_tokens(query: str, passages: list[str]) -> int:
    """Tokens that the pairs of a request have, about."""
    chars = sum(map(len, passages)) + len(query) * max(1, len(passages))
    return max(1, chars // _CHARS_PER_TOKEN)

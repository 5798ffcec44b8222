"""When a request is sent again, and after what pause.

Not tenacity or httpx's own retries: what decides here is Retry-After, the deadline of the call and
the kind of failure, and the loop around those takes four lines (``exchange.py``).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from gpurerank.errors import InputError, RemoteError

_FIRST_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a server is asked again that is busy or could not be reached.

    Attributes:
        attempts: Requests in all for one answer, at least 1.
        longest_pause_s: The most that is waited before one; a server that asks for more is not
            asked again.
        sleep: Waits for seconds; like the next two, here for tests.
        now: Seconds since the epoch, to read a Retry-After that is a date.
        jitter: A number from 0 to 1, so that callers do not come back all at once.
    """

    attempts: int = 4
    longest_pause_s: float = 30.0
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    now: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
            InputError: One is out of range.
        """
        if self.attempts < 1:
            raise InputError(f"attempts is {self.attempts}; a request is sent once at least")
        if not self.longest_pause_s >= 0:
            raise InputError(f"longest_pause_s is {self.longest_pause_s}; it must be 0 or more")

    def pause_s(self, error: RemoteError, attempt: int) -> float | None:
        """Seconds to wait after a failed attempt, counted from 1; None to give up."""
        if not error.transient or attempt >= self.attempts:
            return None
        asked = error.retry_after_s
        if asked is None:
            pause = min(_FIRST_PAUSE_S * 2.0 ** (attempt - 1), self.longest_pause_s)
            return pause * (0.5 + 0.5 * self.jitter())
        if asked > self.longest_pause_s:
            return None
        # Never earlier than the server said.
        return asked + 0.1 * self.jitter() * max(asked, _FIRST_PAUSE_S)


def retry_after_s(header: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as an HTTP date, never below 0.

    Args:
        header: As it came; None or nonsense gives None.
        now: Seconds since the epoch.

    Source: RFC 9110, section 10.2.3.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except (ValueError, OverflowError):
            return None
    # NaN is not over 0 either.
    return seconds if seconds > 0 else 0.0

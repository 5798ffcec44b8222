"""When a request is sent again, and after which delay.

Not tenacity or httpx's own retries: Retry-After, the deadline of the call and the kind of failure
decide here, and the loop around those takes a few lines (``http_client.py``).
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from gpurerank.errors import InputError, RemoteError

_FIRST_DELAY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The retry budget for a server that is busy or cannot be reached.

    Attributes:
        attempts: Requests in total for one response, at least 1.
        longest_pause_s: Longest delay before an attempt, in seconds; a server that asks for more is
            not tried again.

    Example:
        >>> Retry(attempts=2).longest_pause_s
        30.0
    """

    attempts: int = 4
    longest_pause_s: float = 30.0

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
            InputError: One is out of range.
        """
        if self.attempts < 1:
            raise InputError(f"attempts is {self.attempts}; it must be at least 1")
        if not self.longest_pause_s >= 0:
            raise InputError(f"longest_pause_s is {self.longest_pause_s}; it must be 0 or more")

    def delay_s(self, error: RemoteError, attempt: int, jitter: float) -> float | None:
        """Seconds to wait after a failed attempt; None to give up.

        Args:
            error: What the attempt failed with.
            attempt: Number of the attempt, from 1.
            jitter: From 0 to 1, random, so that callers do not all come back at once.
        """
        if not error.transient or attempt >= self.attempts:
            return None
        requested_s = error.retry_after_s
        if requested_s is None:
            delay_s = min(_FIRST_DELAY_S * 2.0 ** (attempt - 1), self.longest_pause_s)
            return delay_s * (0.5 + 0.5 * jitter)
        if requested_s > self.longest_pause_s:
            return None
        # Never earlier than the server requested.
        return requested_s + 0.1 * jitter * max(requested_s, _FIRST_DELAY_S)


class Clock:
    """Time and chance, as the HTTP client uses them; tests pass a subclass that does not wait."""

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def jitter(self) -> float:
        """A random number from 0 to 1."""
        return random.random()


def retry_after_s(header: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header requests, as a number or as an HTTP date, at least 0.

    Args:
        header: Its value; None or an invalid one gives None.
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

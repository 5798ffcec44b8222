"""What travels beside a call: its deadline, the time of its stages, its progress.

Ambient, so that a wrapper around a scorer forwards pairs and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from gpurerank.errors import DeadlineError, InputError

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Call:
    """One call into the package.

    Attributes:
        deadline: Time on ``time.monotonic`` after which no further batch is started, or None.
        stages_ms: Milliseconds that each stage took so far, summed.
        counted: Sums so far: "tokens" of the request as its models read it, where ``counts_tokens``
            is set, and "model_tokens" that ran for it, which caches make fewer.
        counts_tokens: Whether rerankers and embedders count the tokens of what they are given.
        on_progress: Called with (items done, items in all) after each batch.
    """

    deadline: float | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    counts_tokens: bool = False
    on_progress: Progress | None = None

    def remaining_s(self) -> float | None:
        """Seconds to the deadline, never below 0; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def count(self, name: str, number: int) -> None:
        """Adds to what is counted under a name."""
        self.counted[name] = self.counted.get(name, 0) + number

    def check_deadline(self) -> None:
        """Stops a call that is late.

        Raises:
            DeadlineError: The deadline has passed.
        """
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineError("the deadline passed; raise timeout_s or send fewer passages")


_CALL: ContextVar[Call | None] = ContextVar("gpurerank_call", default=None)


def current_call() -> Call:
    """The call in progress, or a fresh one without deadline."""
    return _CALL.get() or Call()


@contextmanager
def calling(
    *,
    timeout_s: float | None = None,
    on_progress: Progress | None = None,
    counts_tokens: bool | None = None,
) -> Iterator[Call]:
    """Opens a call; inside another one it shares the stage times and can only shorten the deadline.

    Args:
        timeout_s: Seconds that the call may take; None for no deadline of its own.
        on_progress: Replaces the outer call's.
        counts_tokens: Replaces the outer call's; None keeps it.

    Raises:
        InputError: ``timeout_s`` is not over 0.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise InputError(f"timeout_s is {timeout_s}; it must be over 0, or None for no deadline")
    outer = current_call()
    deadlines = [outer.deadline, None if timeout_s is None else time.monotonic() + timeout_s]
    inner = Call(
        deadline=min((d for d in deadlines if d is not None), default=None),
        stages_ms=outer.stages_ms,
        counted=outer.counted,
        on_progress=on_progress or outer.on_progress,
        counts_tokens=outer.counts_tokens if counts_tokens is None else counts_tokens,
    )
    token = _CALL.set(inner)
    try:
        yield inner
    finally:
        _CALL.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Adds the time of its body to ``stages_ms[name]`` of the current call."""
    started = time.perf_counter()
    try:
        yield
    finally:
        times = current_call().stages_ms
        times[name] = times.get(name, 0.0) + (time.perf_counter() - started) * 1000.0

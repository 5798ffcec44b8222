"""What is going on, shown as moving bars, or as lines where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gpurerank.evaluation.known import Say

OVERALL = ("queries", "timing")
LONG_S = 300.0


@contextmanager
def shown_progress(console: Console) -> Iterator[Say]:
    """Yields what takes the progress; its bars are gone afterwards."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bars(progress, console).say


class _Bars:
    """A bar for the whole and, below it, one for the part that is under way."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._tasks: dict[bool, tuple[str, TaskID]] = {}
        self._queries_since: float | None = None
        self._warned = False

    def say(self, what: str, done: int, total: int) -> None:
        overall = what in OVERALL
        if overall:
            self._end(overall=False)
        name, task = self._tasks.get(overall, ("", None))
        if name != what or task is None:
            self._end(overall=overall)
            task = self._progress.add_task(escape(what), total=total or None, count="")
            self._tasks[overall] = (what, task)
        if what == "queries":
            self._warn_of_long_work(done, total)
        count = f"{done:,} of {total:,}" if total else ""
        self._progress.update(task, completed=done, total=total or None, count=count)
        if not self._console.is_terminal and (overall or not done):
            self._console.print(escape(f"{what} {count}".strip()), soft_wrap=True)

    def _warn_of_long_work(self, done: int, total: int) -> None:
        """Says once, as soon as it shows, what a long run has left and how to have less."""
        if self._queries_since is None:
            self._queries_since = time.monotonic()
        if done == 0 or self._warned:
            return
        self._warned = True
        left_s = (time.monotonic() - self._queries_since) * (total - done) / done
        if left_s > LONG_S:
            fewer = max(25, round(total * LONG_S / left_s / 25) * 25)
            self._console.print(
                f"[yellow]about {left_s / 60:.0f} minutes to go:[/] --queries {fewer} takes a"
                " sample, Ctrl-C ends now and shows what is finished",
                soft_wrap=True,
            )

    def _end(self, *, overall: bool) -> None:
        if overall in self._tasks:
            self._progress.remove_task(self._tasks.pop(overall)[1])

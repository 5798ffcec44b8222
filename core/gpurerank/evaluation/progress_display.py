"""Progress of an evaluation: live bars in a terminal, lines of text elsewhere."""

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

from gpurerank.evaluation.replay import ProgressCallback

# Work that spans the whole evaluation; all other work is a part of it, with a bar below.
OVERALL_WORK = ("queries", "timing")
LONG_RUN_S = 300.0


@contextmanager
def displayed_progress(console: Console) -> Iterator[ProgressCallback]:
    """Yields a callback that displays progress on the console until the body ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _ProgressBars(progress, console).update


class _ProgressBars:
    """A bar for the whole evaluation and, below it, one for the current part."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._tasks: dict[bool, tuple[str, TaskID]] = {}  # by whether the work is overall
        self._queries_started: float | None = None
        self._estimated = False

    def update(self, work: str, done: int, total: int) -> None:
        overall = work in OVERALL_WORK
        if overall:
            self._remove_bar(overall=False)
        name, task = self._tasks.get(overall, ("", None))
        if name != work or task is None:
            self._remove_bar(overall=overall)
            task = self._progress.add_task(escape(work), total=total or None, count="")
            self._tasks[overall] = (work, task)
        if work == "queries":
            self._estimate_time(done, total)
        count = f"{done:,} of {total:,}" if total else ""
        self._progress.update(task, completed=done, total=total or None, count=count)
        # Without a terminal the bars are invisible; a part prints one line, at its start.
        if not self._console.is_terminal and (overall or not done):
            self._console.print(escape(f"{work} {count}".strip()), soft_wrap=True)

    def _estimate_time(self, done: int, total: int) -> None:
        """Prints the remaining time of a long run once, after its first batch of queries."""
        if self._queries_started is None:
            self._queries_started = time.monotonic()
        if done == 0 or self._estimated:
            return
        self._estimated = True
        remaining_s = (time.monotonic() - self._queries_started) * (total - done) / done
        if remaining_s > LONG_RUN_S:
            # A round number of queries that takes about five minutes.
            sample = max(25, round(total * LONG_RUN_S / remaining_s / 25) * 25)
            self._console.print(
                f"[yellow]about {remaining_s / 60:.0f} minutes remaining:[/] --queries {sample}"
                " evaluates a random sample; Ctrl-C stops and reports the finished queries",
                soft_wrap=True,
            )

    def _remove_bar(self, *, overall: bool) -> None:
        if overall in self._tasks:
            self._progress.remove_task(self._tasks.pop(overall)[1])

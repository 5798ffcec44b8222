"""A progress bar for long work, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpurerank.calls import calling


@contextmanager
def progress_bar(title: str, total: int, *, shown: bool) -> Iterator[None]:
    """Shows the progress that the work in its body reports to its call."""
    if not shown:
        yield
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=title, unit="text") as bar:

        def update(done: int, _total: int) -> None:
            bar.update(done - bar.n)

        with calling(on_progress=update):
            yield

"""A text goes through a model once: what it said before is remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from gpurerank.calls import current_call
from gpurerank.engine.batch import BatchModel
from gpurerank.engine.job import Item, JobResult
from gpurerank.errors import NotFiniteError
from gpurerank.types import Rows

if TYPE_CHECKING:
    from gpurerank.engine.engine import Engine
    from gpurerank.models.remembered import Known, RememberedRows


class RememberingModel(BatchModel, Protocol):
    """A model that knows what it has said."""

    @property
    def name(self) -> str:
        """As it was asked for."""
        ...

    @property
    def remembered(self) -> RememberedRows:
        """What it has said of which texts."""
        ...

    def blank(self, count: int) -> Rows:
        """Room for the rows of so many items."""
        ...


Model = TypeVar("Model", bound=RememberingModel)


class Once(Generic[Model]):
    """Runs items through a model, those that it has not answered before.

    Args:
        engine: Gives what runs the model, or says that it was closed.
    """

    def __init__(self, engine: Callable[[], Engine[Model]]) -> None:
        self._engine = engine

    def run(self, items: list[Item]) -> JobResult:
        """A row an item, input order.

        Raises:
            ClosedError: The engine was closed, or belongs to the parent of this forked process.
            NotFiniteError: The model returned NaN or infinity.
            GPURerankError: The model failed.
        """
        engine = self._open_engine()
        known, missing = _known(engine.model, items)
        fresh = engine.run(missing, stage="embed") if missing else _nothing(engine.model)
        _report(items, missing)
        return _joined(engine.model, items, known, missing, fresh)

    async def arun(self, items: list[Item]) -> JobResult:
        """As ``run``, without blocking the event loop."""
        engine = self._open_engine()
        known, missing = _known(engine.model, items)
        fresh = await engine.arun(missing, stage="embed") if missing else _nothing(engine.model)
        _report(items, missing)
        return await engine.run_off_loop(
            lambda: _joined(engine.model, items, known, missing, fresh)
        )

    def _open_engine(self) -> Engine[Model]:
        """The engine, checked: remembered rows alone would be served by a closed one too."""
        engine = self._engine()
        engine.check_open()
        return engine


def _known(model: RememberingModel, items: list[Item]) -> tuple[list[Known | None], list[Item]]:
    """What is known of each item, and each item of which nothing is, once."""
    known = model.remembered.find(items)
    missing = [item for item, one in zip(items, known, strict=True) if one is None]
    return known, list(dict.fromkeys(missing))


def _nothing(model: RememberingModel) -> JobResult:
    return JobResult(model.blank(0), [], [])


def _report(items: list[Item], missing: list[Item]) -> None:
    """The engine told of what it ran, and of no more."""
    call = current_call()
    if call.on_progress is not None and len(missing) < len(items):
        call.on_progress(len(items), len(items))


def _joined(
    model: RememberingModel,
    items: list[Item],
    known: list[Known | None],
    missing: list[Item],
    fresh: JobResult,
) -> JobResult:
    _check_finite(model.name, missing, fresh.rows)
    if missing:
        model.remembered.keep(missing, fresh.rows, fresh.truncated, fresh.lengths)
    if len(missing) == len(items):
        return fresh
    new = dict(zip(missing, zip(*fresh, strict=True), strict=True))
    results = [new[item] if one is None else one for item, one in zip(items, known, strict=True)]
    rows = model.blank(len(items))
    for index, (row, _, _) in enumerate(results):
        rows[index] = row
    return JobResult(
        rows, [truncated for _, truncated, _ in results], [length for *_, length in results]
    )


def _check_finite(name: str, items: list[Item], rows: Rows) -> None:
    if rows.dtype == object:
        wrong = [place for place, row in enumerate(rows) if not np.isfinite(row).all()]
    else:
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist()
    if wrong:
        raise NotFiniteError(
            f"{name!r} returned NaN or infinity for {len(wrong)} of {len(items)} texts, first for"
            f" one of {len(items[wrong[0]][1])} characters"
        )

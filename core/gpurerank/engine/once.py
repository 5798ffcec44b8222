"""A text goes through a model once: what it said before is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from gpurerank.calls import current_call
from gpurerank.engine.batch import BatchModel
from gpurerank.engine.job import Answer, Item
from gpurerank.errors import NotFiniteError
from gpurerank.types import Rows

if TYPE_CHECKING:
    from gpurerank.engine.registry import Lease
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
    """Runs items through a leased model, those that it has not answered before.

    Args:
        lease: The model; whoever gave it closes it.
    """

    def __init__(self, lease: Lease[Model]) -> None:
        self._lease = lease

    def run(self, items: list[Item]) -> Answer:
        """A row an item, input order.

        Raises:
            NotFiniteError: The model returned NaN or infinity.
            GPURerankError: The model failed.
        """
        engine, known = self._lease.engine, self._lease.model.remembered.find(items)
        missing = _missing(items, known)
        fresh = engine.run(missing, stage="embed") if missing else self._nothing()
        return self._joined(items, known, missing, fresh)

    async def arun(self, items: list[Item]) -> Answer:
        """As ``run``, without blocking the event loop."""
        engine, known = self._lease.engine, self._lease.model.remembered.find(items)
        missing = _missing(items, known)
        fresh = await engine.arun(missing, stage="embed") if missing else self._nothing()
        return self._joined(items, known, missing, fresh)

    def _nothing(self) -> Answer:
        return Answer(self._lease.model.blank(0), [])

    def _joined(
        self, items: list[Item], known: list[Known | None], missing: list[Item], fresh: Answer
    ) -> Answer:
        model = self._lease.model
        _check_finite(model.name, missing, fresh.rows)
        call = current_call()
        if call.on_progress is not None and len(missing) < len(items):
            call.on_progress(len(items), len(items))
        if missing:
            model.remembered.keep(missing, fresh.rows, fresh.truncated)
        if len(missing) == len(items):
            return fresh
        new = dict(zip(missing, zip(fresh.rows, fresh.truncated, strict=True), strict=True))
        found = [new[item] if one is None else one for item, one in zip(items, known, strict=True)]
        rows = model.blank(len(items))
        for place, (row, _) in enumerate(found):
            rows[place] = row
        return Answer(rows, [truncated for _, truncated in found])


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


def _missing(items: list[Item], known: Sequence[Known | None]) -> list[Item]:
    """What is not known, each item once."""
    return list(dict.fromkeys(i for i, one in zip(items, known, strict=True) if one is None))

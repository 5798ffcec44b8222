"""One copy of each model in a process, however many objects use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gpurerank.errors import ClosedError
from gpurerank.models.memory import free_unused
from gpurerank.models.owner import Owner

Model = TypeVar("Model")


@dataclass(slots=True)
class _Entry:
    model: Any
    owner: Owner
    users: int


class Lease(Generic[Model]):
    """The right to use a model; the last lease that is released frees it."""

    def __init__(self, model: Model, owner: Owner, release: Callable[[], None]) -> None:
        self._held: tuple[Model, Owner] | None = (model, owner)
        self._give_back = release

    @property
    def model(self) -> Model:
        """The model.

        Raises:
            ClosedError: The lease was released.
        """
        return self._open()[0]

    @property
    def owner(self) -> Owner:
        """The thread that runs the model.

        Raises:
            ClosedError: The lease was released.
        """
        return self._open()[1]

    def release(self) -> None:
        """Gives the model back and forgets it; a second call does nothing."""
        held, self._held = self._held, None
        if held is not None:
            del held
            self._give_back()

    def _open(self) -> tuple[Model, Owner]:
        if self._held is None:
            raise ClosedError("this object was closed; make a new one")
        return self._held


class Registry:
    """Models in use, by key, with their owner threads.

    Attributes:
        loads: Models loaded since the process began.
    """

    def __init__(self) -> None:
        self.loads = 0
        self._entries: dict[Hashable, _Entry] = {}
        # Reentrant: a finalizer may release while this thread holds it.
        self._lock = threading.RLock()
        # Apart from the other, so that closing one model never waits for another's download;
        # one at a time, because transformers' loading is not safe between threads.
        self._loading = threading.Lock()

    def acquire(self, key: Hashable, load: Callable[[], Model], name: str) -> Lease[Model]:
        """The model of a key, loaded if nobody has it yet; ``name`` is for its thread."""
        lease = self._lease(key)
        if lease is not None:
            return lease
        with self._loading:
            lease = self._lease(key)
            if lease is None:
                entry = _Entry(load(), Owner(name), users=0)
                self.loads += 1
                with self._lock:
                    self._entries[key] = entry
                    lease = self._lease(key)
        assert lease is not None
        return lease

    def loaded(self) -> int:
        """How many models are held."""
        return len(self._entries)

    def _lease(self, key: Hashable) -> Lease[Any] | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            entry.users += 1
            return Lease(entry.model, entry.owner, lambda: self._release(key))

    def _release(self, key: Hashable) -> None:
        with self._lock:
            entry = self._entries[key]
            entry.users -= 1
            if entry.users:
                return
            del self._entries[key]
            entry.owner.close()
        del entry
        free_unused()


REGISTRY = Registry()

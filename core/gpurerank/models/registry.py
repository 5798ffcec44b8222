"""One copy of each model in a process, however many objects use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gpurerank.models.owner import Owner

Model = TypeVar("Model")


@dataclass(slots=True)
class _Entry:
    model: object
    owner: Owner
    users: int


class Lease(Generic[Model]):
    """The right to use a model; the last lease that is released frees it."""

    def __init__(self, model: Model, owner: Owner, release: Callable[[], None]) -> None:
        self.model = model
        self.owner = owner
        self._release = release

    def release(self) -> None:
        """Gives the model back; a second call does nothing."""
        release, self._release = self._release, lambda: None
        release()


class Registry:
    """Models in use, by key, with their owner threads."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        # Held while loading too: transformers' loading is not safe between threads.
        self._lock = threading.RLock()

    def acquire(self, key: Hashable, load: Callable[[], Model]) -> Lease[Model]:
        """The model of a key, loaded if nobody has it yet."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                entry = _Entry(load(), Owner(type(key).__name__), users=0)
                self._entries[key] = entry
            entry.users += 1
            return Lease(entry.model, entry.owner, lambda: self._release(key))  # type: ignore[arg-type]

    def loaded(self) -> int:
        """How many models are held."""
        return len(self._entries)

    def _release(self, key: Hashable) -> None:
        with self._lock:
            entry = self._entries[key]
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]
                entry.owner.close()


REGISTRY = Registry()

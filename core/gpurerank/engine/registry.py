"""One copy of each model in a process, however many objects use it."""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from gpurerank.engine.batch import BatchModel
from gpurerank.engine.engine import Engine
from gpurerank.errors import ClosedError
from gpurerank.models.device_errors import free_unused

Model = TypeVar("Model", bound=BatchModel)
Other = TypeVar("Other", bound=BatchModel)

# How long the exit of the process waits for a load that was interrupted.
_EXIT_WAIT_S = 1.0


class _Entry:
    """A model that is loaded: its engine, and those that run the same weights in another way."""

    def __init__(self, engine: Engine[Any], name: str) -> None:
        self.engine = engine
        self.users = 0
        self._name = name
        self._beside: dict[Hashable, Engine[Any]] = {}
        self._lock = threading.Lock()

    def beside(self, kind: Callable[[Any], Any]) -> Engine[Any]:
        with self._lock:
            engine = self._beside.get(kind)
            if engine is None or not engine.usable:
                self.engine.check_open()
                engine = Engine([kind(copy) for copy in self.engine.replicas], self._name)
                self._beside[kind] = engine
            return engine

    def close(self) -> None:
        self.engine.close()
        with self._lock:
            while self._beside:
                self._beside.popitem()[1].close()


class Lease(Generic[Model]):
    """The right to use a model."""

    def __init__(self, entry: _Entry, release: Callable[[bool], None]) -> None:
        self._held: _Entry | None = entry
        self._give_back: Callable[[bool], None] | None = release
        self._lock = threading.Lock()

    @property
    def model(self) -> Model:
        """The model; its first copy where there are several.

        Raises:
            ClosedError: The lease was released.
        """
        return self.engine.model

    @property
    def engine(self) -> Engine[Model]:
        """What runs the model.

        Raises:
            ClosedError: The lease was released.
        """
        if self._held is None:
            raise ClosedError("this object was closed; make a new one")
        return self._held.engine

    def beside(self, kind: Callable[[Model], Other]) -> Engine[Other]:
        """What runs the same weights as a model of another kind, made once and freed with them.

        Args:
            kind: Makes that model of a copy of this one; must be fast, and load nothing.

        Raises:
            ClosedError: The lease was released.
        """
        if self._held is None:
            raise ClosedError("this object was closed; make a new one")
        return self._held.beside(kind)

    def close(self) -> None:
        """Gives the model back; the last one to do so frees it. A second call does nothing."""
        self._release(free=True)

    def forget(self) -> None:
        """Gives the model back and leaves it loaded for whoever comes next."""
        self._release(free=False)

    def _release(self, *, free: bool) -> None:
        with self._lock:
            give_back, self._give_back = self._give_back, None
            # Whoever keeps this object keeps no model.
            self._held = None
        if give_back is not None:
            give_back(free)


class Registry:
    """Models that are loaded, by key, with their engines.

    Attributes:
        loads: Models loaded since the process began.
    """

    def __init__(self) -> None:
        self.loads = 0
        self.forget_all()

    def forget_all(self) -> None:
        """Forgets the parent's models in a forked process: their threads do not exist there."""
        self._entries: dict[Hashable, _Entry] = {}
        # Reentrant: a finalizer may release while this thread holds it.
        self._lock = threading.RLock()
        # Apart from the other, so that closing one model never waits for another's download;
        # one at a time, because loading is not safe between threads.
        self._loading = threading.Lock()

    def acquire(
        self, key: Hashable, load: Callable[[], Sequence[Model]], name: str
    ) -> Lease[Model]:
        """Leases the model of a key; loads it if it is not loaded yet.

        Args:
            key: Identifies the model.
            load: Returns one copy of the model for each device; called on a new thread.
            name: Names the model's threads.
        """
        while (lease := self._lease(key)) is None:
            _run_on_new_thread(lambda: self._ensure_loaded(key, load, name))
        return lease

    def loaded(self) -> int:
        """How many models are held."""
        return len(self._entries)

    def _ensure_loaded(self, key: Hashable, load: Callable[[], Sequence[Model]], name: str) -> None:
        with self._loading:
            loaded = self._entries.get(key)
            if loaded is not None and loaded.engine.usable:
                return
            entry = _Entry(Engine(load(), name), name)
            with self._lock:
                self.loads += 1
                self._entries[key] = entry

    def _lease(self, key: Hashable) -> Lease[Any] | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or not entry.engine.usable:
                return None
            entry.users += 1
            return Lease(entry, lambda free: self._release(key, entry, free))

    def _release(self, key: Hashable, entry: _Entry, free: bool) -> None:
        with self._lock:
            entry.users -= 1
            if entry.users or not free:
                return
            # Another may stand there by now: a fork, or an engine that failed, begins anew.
            if self._entries.get(key) is entry:
                del self._entries[key]
        entry.close()
        del entry
        free_unused()

    def free_idle(self) -> int:
        """Frees every model that nobody uses; returns how many."""
        with self._lock:
            idle = [key for key, entry in self._entries.items() if entry.users == 0]
            entries = [self._entries.pop(key) for key in idle]
        while entries:
            entries.pop().close()
        free_unused()
        return len(idle)

    def close(self) -> None:
        """Ends every engine, so that no thread runs a model while the interpreter shuts down."""
        # Held only by a load whose caller was interrupted.
        if self._loading.acquire(timeout=_EXIT_WAIT_S):
            self._loading.release()
        for entry in list(self._entries.values()):
            entry.close()


def _run_on_new_thread(work: Callable[[], None]) -> None:
    """Runs work on a new thread and waits for it; an interrupt ends the wait, not the work.

    libgomp keeps a team of workers for each thread that has run a parallel region. After a fork,
    the calling thread still refers to a team that does not exist in the child, so its next parallel
    region crashes or never ends (pytorch#49555). A new thread gets a team of its own, and so do the
    threads of an engine.
    """
    done: Future[None] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            context.run(work)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    # A daemon, so that Ctrl-C during a long download ends the process.
    threading.Thread(target=run, name="gpurerank-load", daemon=True).start()
    done.result()


def _reset_in_child() -> None:
    """Prepares a forked process: no model, and no thread pool, came along."""
    if REGISTRY.loads:
        # The tokenizers library has a pool of its own, whose threads do not survive the fork; a
        # parallel call would wait for them for ever. It switches itself off after a fork, but not
        # where this variable is set, and reads it at each call.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    REGISTRY.forget_all()


REGISTRY = Registry()
atexit.register(REGISTRY.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)


def free_models() -> int:
    """Frees the memory of every model that no object uses any more; returns how many.

    A model whose objects were merely dropped stays loaded, so that a reranker that is made anew
    for each request does not load it each time. ``close()`` frees at once.
    """
    return REGISTRY.free_idle()

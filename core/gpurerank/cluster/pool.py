"""The Ray scorer: pairs scored by a pool of actors, each with one copy of the model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import (
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)

from gpurerank.calls import calling, current_call
from gpurerank.cluster.connection import Replicas, join
from gpurerank.cross_encoder import LongPassages
from gpurerank.errors import ClosedError, DeadlineError, GPURerankError, InputError, ScoringError
from gpurerank.request import check_pairs
from gpurerank.reranker import Reranker
from gpurerank.reranker_options import RerankerOptions

# How often a part is given to another life of its actor before it is given up.
_LIVES = 3
# Calls that one replica works on at a time; they share its batches.
_CALLS = 64


class _Replica:
    """One copy of the model, in a process of its own."""

    def __init__(self, options: RerankerOptions) -> None:
        self._options = options
        self._reranker: Reranker | None = None

    async def load(self) -> None:
        """Loads the model; asked for once, so that a wrong name fails early and says why."""
        self._loaded()

    async def score(self, pairs: list[tuple[str, str]], timeout_s: float | None) -> list[float]:
        """The scores of pairs; calls side by side share batches."""
        with calling(timeout_s=timeout_s):
            return await self._loaded().ascore_pairs(pairs)

    def _loaded(self) -> Reranker:
        # Not in the constructor: what fails there reaches nobody but as a dead actor.
        if self._reranker is None:
            self._reranker = Reranker.from_options(self._options)
        return self._reranker


class RayScorer:
    """Scores pairs on a Ray cluster. Safe to call from any thread and task.

    ``Reranker.from_scorer(RayScorer(...), name=...)`` ranks with it, and the plugins take that as
    ``ranker=``. A replica that dies comes back, and what it worked on is done again. Needs the
    extra ``ray``.

    Args:
        model: As in Reranker, and so all of that name; every node must find it.
        replicas: Actors, each with one copy of the model.
        num_cpus: Cores that one is counted with. On a CPU it computes with as many threads, at
            least one, which OMP_NUM_THREADS on the nodes overrides.
        num_gpus: GPUs of one; 0.5 puts two on one GPU. None is 1 where the cluster has a GPU,
            otherwise 0.
        address: Of the cluster; None is the one that this process, RAY_ADDRESS or this machine has,
            or else a new one of this machine alone.
        pairs_per_task: Pairs given to an actor at once; a call with more is spread over the pool.
        device: Of a replica; "auto" is the GPU that Ray gives it.
        dtype: As in Reranker.
        max_length: As in Reranker.
        long_passages: As in Reranker.
        revision: As in Reranker.
        instruction: As in Reranker.
        positive_label: As in Reranker.
        timeout_s: Deadline of a call in seconds.
        trust_remote_code: As in Reranker.

    Raises:
        InputError: An option is wrong, there is no such cluster, or it has too little room.
        ModelError: A replica cannot load the model.
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        model: str = "embedded",
        *,
        replicas: int = 1,
        num_cpus: float = 0.5,
        num_gpus: float | None = None,
        address: str | None = None,
        pairs_per_task: int = 256,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int = 512,
        long_passages: LongPassages = "windows",
        revision: str | None = None,
        instruction: str | None = None,
        positive_label: int | None = None,
        timeout_s: float | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if pairs_per_task < 1:
            raise InputError(f"pairs_per_task is {pairs_per_task}; it must be at least 1")
        options = RerankerOptions(
            model=model,
            device=device,
            dtype=dtype,
            max_length=max_length,
            long_passages=long_passages,
            revision=revision,
            instruction=instruction,
            positive_label=positive_label,
            timeout_s=timeout_s,
            trust_remote_code=trust_remote_code,
        )
        options.check()
        wanted = Replicas(count=replicas, num_cpus=num_cpus, num_gpus=num_gpus)
        wanted.check()
        join(address)
        self._timeout_s = timeout_s
        self._pairs_per_task = pairs_per_task
        self._lock = threading.Lock()
        self._busy = _started(options, wanted.fitted())
        self._await_models()

    def score_pairs(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """The score of each (query, passage), in [0, 1], input order.

        Raises:
            InputError: A pair is not two strings, or a query is blank.
            ScoringError: The model failed, or a replica died each time it came back.
            DeadlineError: The deadline passed; the work is cancelled.
            ClosedError: The pool was closed.
        """
        checked = check_pairs(pairs)
        with calling(timeout_s=self._timeout_s) as call, self._given(checked) as tasks:
            parts: dict[Any, list[float]] = {}
            waiting, done = list(tasks), 0
            while waiting:
                call.check_deadline()
                ready, waiting = ray.wait(waiting, timeout=call.remaining_s())
                parts.update(zip(ready, _answered(ready), strict=True))
                done += sum(tasks[task] for task in ready)
                if call.on_progress is not None:
                    call.on_progress(done, len(checked))
        return [score for task in tasks for score in parts[task]]

    async def ascore_pairs(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking the event loop; cancelling stops the work."""
        checked = check_pairs(pairs)
        with calling(timeout_s=self._timeout_s) as call, self._given(checked) as tasks:
            answers = asyncio.gather(*(asyncio.wrap_future(task.future()) for task in tasks))
            try:
                parts = await asyncio.wait_for(answers, call.remaining_s())
            except asyncio.TimeoutError as error:
                if isinstance(error, DeadlineError):
                    raise
                raise DeadlineError("the deadline passed before the cluster answered") from None
            except RayError as error:
                raise _translated(error) from None
        return [score for part in parts for score in part]

    def close(self) -> None:
        """Ends the actors; calls under way fail."""
        with self._lock:
            actors, self._busy = list(self._busy), {}
        for actor in actors:
            ray.kill(actor)

    def __enter__(self) -> RayScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await_models(self) -> None:
        try:
            _answered([actor.load.remote() for actor in self._busy])
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _given(self, pairs: list[tuple[str, str]]) -> Iterator[dict[Any, int]]:
        """Gives pairs to the actors that have the least to do; a failure cancels what is left.

        Yields the tasks in the order of the pairs, with the number of pairs of each.
        """
        current_call().check_deadline()
        remaining_s = current_call().remaining_s()
        tasks: dict[Any, int] = {}
        owners = []
        try:
            for start in range(0, len(pairs), self._pairs_per_task):
                part = pairs[start : start + self._pairs_per_task]
                actor = self._least_busy(len(part))
                owners.append((actor, len(part)))
                tasks[actor.score.remote(part, remaining_s)] = len(part)
            yield tasks
        except BaseException:
            for task in tasks:
                ray.cancel(task)
            raise
        finally:
            with self._lock:
                for actor, count in owners:
                    if actor in self._busy:
                        self._busy[actor] -= count

    def _least_busy(self, count: int) -> Any:
        with self._lock:
            if not self._busy:
                raise ClosedError("the pool was closed; make a new RayScorer")
            actor = min(self._busy, key=lambda one: self._busy[one])
            self._busy[actor] += count
            return actor


def _started(options: RerankerOptions, replicas: Replicas) -> dict[Any, int]:
    """The actors, with the number of pairs that each works on."""
    remote: Any = ray.remote
    actor = remote(
        num_cpus=replicas.num_cpus,
        num_gpus=replicas.num_gpus or 0,
        max_restarts=-1,
        max_task_retries=_LIVES - 1,
        max_concurrency=_CALLS,
    )(_Replica)
    return {actor.remote(options): 0 for _ in range(replicas.count)}


def _answered(tasks: list[Any]) -> list[Any]:
    try:
        return ray.get(tasks)
    except RayError as error:
        raise _translated(error) from None


def _translated(error: RayError) -> GPURerankError:
    """What happened in a replica, as it would be raised in this process."""
    if isinstance(error, RayTaskError):
        if isinstance(error.cause, GPURerankError):
            return error.cause
        return ScoringError(f"a replica failed: {type(error.cause).__name__}")
    if isinstance(error, TaskCancelledError):
        return ClosedError("the pool was closed while it scored")
    if isinstance(error, RayActorError):
        return ScoringError(
            f"a replica died, and again in each of {_LIVES} lives: see Ray's logs; too little"
            " memory is the usual reason"
        )
    return ScoringError(f"the cluster failed: {type(error).__name__}")

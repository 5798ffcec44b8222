"""The feeder: the thread that tokenizes what callers submit and prepares one batch ahead."""

from __future__ import annotations

from gpurerank.engine.batch import Batch, BatchModel, count_tokens
from gpurerank.engine.scheduler import Scheduler
from gpurerank.engine.state import EngineState


class Feeder:
    """Turns jobs into batches while the lanes run earlier ones.

    A prepared batch that no lane has taken yet is extended by what arrives meanwhile, as long as
    it has room. There is no time window: an idle lane gets whatever there is.

    Args:
        model: Tokenizes and prepares; with several devices, the first copy.
        state: Where jobs come from and batches go.
        min_share: Tokens below which a lane of its own is not worth it.
    """

    def __init__(self, model: BatchModel, state: EngineState, min_share: int) -> None:
        self._model = model
        self._state = state
        self._min_share = min_share
        self._scheduler = Scheduler(model.tokenize)

    def run(self) -> None:
        """Prepares batches until the engine ends; the body of the feeder's thread."""
        with self._state.failing_on_error():
            while self._collect_jobs():
                self._prepare_batch()

    def _collect_jobs(self) -> bool:
        # A function of its own: the frame of run() must not keep a job alive while it waits.
        jobs = self._state.wait_for_jobs(has_backlog=len(self._scheduler) > 0)
        for job in jobs or ():
            self._scheduler.add(job)
        return jobs is not None

    def _prepare_batch(self) -> None:
        budget = self._state.budget.tokens
        # Tokenized before the prepared batch is taken back, so that a lane which falls idle during
        # tokenization can still run that batch.
        self._scheduler.tokenize(budget * self._model.lanes, budget)
        earlier, idle_lanes = self._state.take_back_batch()
        entries = [] if earlier is None else [e for e in earlier.entries if not e.job.ended]
        tokens = count_tokens(entries)
        room = self._batch_room(tokens, idle_lanes, budget)
        while fresh := self._scheduler.take(room - tokens, budget, may_exceed=not entries):
            entries = entries + fresh
            tokens += count_tokens(fresh)
            self._scheduler.tokenize(room - tokens, budget)
        if entries:
            self._state.offer_batch(Batch.of(self._model, entries))

    def _batch_room(self, tokens: int, idle_lanes: int, budget: int) -> int:
        """Tokens of the next batch, chosen so that the lanes of a device finish together."""
        lanes = self._model.lanes
        waiting = self._scheduler.waiting_tokens
        # While jobs are not tokenized yet there is enough for every lane.
        if lanes == 1 or waiting is None:
            return budget
        share = -(-(tokens + waiting) // (idle_lanes or lanes))
        return min(budget, max(share, self._min_share))

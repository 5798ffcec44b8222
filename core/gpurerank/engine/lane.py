"""A lane: a thread that runs prepared batches on one device."""

from __future__ import annotations

import threading
import time

from gpurerank.engine.batch import Batch, BatchModel, run_batch
from gpurerank.engine.state import EngineState


class Lane:
    """Runs batches one after another. A GPU has one lane, a CPU several at the same time.

    Args:
        number: Position among the engine's lanes, from 0.
        replica: The copy of the model on this lane's device.
        state: Where batches come from.

    Attributes:
        is_set_up: Set once the thread has done its setup, whether that worked or not.
    """

    def __init__(self, number: int, replica: BatchModel, state: EngineState) -> None:
        self.is_set_up = threading.Event()
        self._number = number
        self._replica = replica
        self._state = state

    def run(self) -> None:
        """Runs batches until the engine ends; the body of the lane's thread."""
        with self._state.failing_on_error():
            try:
                self._replica.enter_lane()
            finally:
                self.is_set_up.set()
            while self._run_next_batch():
                pass

    def _run_next_batch(self) -> bool:
        # A function of its own: neither a batch nor its jobs may stay alive while the lane waits.
        batch = self._state.wait_for_batch(self._number)
        if batch is None:
            return False
        if not all(entry.job.expire() for entry in batch.entries):
            self._run(batch)
        return True

    def _run(self, batch: Batch) -> None:
        started = time.perf_counter()
        failure = run_batch(self._replica, batch)
        self._state.record_batch(batch, time.perf_counter() - started, failure)

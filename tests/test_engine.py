"""The engine: shared batches, their order, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gpurerank import (
    DeadlineError,
    ScoringError,
    calling,
)
from gpurerank.engine.batch_budget import BatchBudget
from gpurerank.engine.engine import Engine
from gpurerank.engine.job import Job
from gpurerank.errors import ClosedError, DeviceError, OutOfMemoryError
from gpurerank.models.packing import Tokens
from gpurerank.types import FloatArray
from tests.test_scheduler import tokens_of, words
from tests.time_limits import HANG_S

Item = tuple[str, str]


class Echo:
    """A model that returns the number in the query; words in the passage make it fail."""

    max_length = 8
    tokens_per_batch = (8, 64)

    def __init__(self, *, at_once: int = 1_000, lanes: int = 1) -> None:
        self.lanes = lanes
        self.entered: list[str] = []
        self.batches: list[list[Item]] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.runs = threading.Semaphore(0)
        self._at_once = at_once

    def enter_lane(self) -> None:
        self.entered.append(threading.current_thread().name)

    def tokenize(self, items: Sequence[Item]) -> list[Tokens]:
        if any("unreadable" in text for _, text in items):
            raise ValueError("no such token")
        return tokens_of(items)

    def prepare(self, items: Sequence[Item], tokens: Sequence[Tokens]) -> list[Item]:
        assert [t.length for t in tokens] == [t.length for t in tokens_of(items)]
        if any("unpinned" in text for _, text in items):
            raise DeviceError("no page-locked memory")
        return list(items)

    def run(self, batch: list[Item]) -> FloatArray:
        self.runs.release()
        assert self.may_run.wait(HANG_S)
        self.batches.append(batch)
        text = " ".join(text for _, text in batch)
        if "fails" in text:
            raise ScoringError("the kernel failed")
        if "lost" in text:
            raise DeviceError("the device is lost")
        if "alone" in text and len(batch) > 1:
            raise ScoringError("too much at once")
        if len(batch) > self._at_once or "huge" in text:
            raise OutOfMemoryError("a batch does not fit")
        answers = np.array([float(query) for query, _ in batch], dtype=np.float32)
        return answers[:-1] if "short" in text else answers


Make = Callable[..., tuple[Engine[Echo], Echo]]


@pytest.fixture
def make() -> Iterator[Make]:
    engines = []

    def make_engine(
        hang_s: float = 60.0, budget: BatchBudget | None = None, **options: int
    ) -> tuple[Engine[Echo], Echo]:
        model = Echo(**options)
        engine = Engine([model], "echo", hang_s=hang_s, budget=budget)
        engines.append((engine, model))
        return engine, model

    yield make_engine
    for engine, model in engines:
        model.may_run.set()
        engine.close()


def full_budget() -> BatchBudget:
    """The budget of a device that is known to be fast: 64 tokens."""
    budget = BatchBudget(8, 64)
    budget.record(64, 0.01)
    return budget


def rows(engine: Engine[Echo], items: Sequence[Item]) -> list[float]:
    return engine.run(items).rows.tolist()


def test_results_keep_the_callers_order(make: Make) -> None:
    engine, _ = make()
    items = [(str(i), words(1 + (i * 7) % 8)) for i in range(1_000)]
    assert rows(engine, items) == [float(i) for i in range(1_000)]
    stats = engine.stats()
    assert (stats.items, stats.tokens) == (1_000, sum(1 + (i * 7) % 8 for i in range(1_000)))
    assert stats.waiting_items == 0


def test_calls_that_arrive_while_the_device_is_busy_share_the_next_batch(make: Make) -> None:
    engine, model = make(budget=full_budget())
    model.may_run.clear()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(rows, engine, [("0", "word")])
        assert model.runs.acquire(timeout=HANG_S)
        rest = [pool.submit(rows, engine, [(str(i), words(2))]) for i in range(1, 9)]
        until(lambda: engine.stats().prepared_items == 8)
        model.may_run.set()
        assert [first.result(), *(future.result() for future in rest)] == [
            [float(i)] for i in range(9)
        ]
    assert [len(batch) for batch in model.batches] == [1, 8]


def test_all_lanes_run_batches_at_the_same_time(make: Make) -> None:
    engine, model = make(lanes=3)
    model.may_run.clear()
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(rows, engine, [(str(i), words(8))]) for i in range(3)]
        for _ in calls:
            assert model.runs.acquire(timeout=HANG_S)
        model.may_run.set()
        assert [call.result(HANG_S) for call in calls] == [[0.0], [1.0], [2.0]]
    assert len(model.entered) == 3


def test_idle_lanes_share_the_items_of_one_call(make: Make) -> None:
    engine, model = make(lanes=2, budget=full_budget())
    model.may_run.clear()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(rows, engine, [(str(i), words(4)) for i in range(8)])
        for _ in range(2):
            assert model.runs.acquire(timeout=HANG_S)
        model.may_run.set()
        assert call.result(HANG_S) == [float(i) for i in range(8)]
    assert [len(batch) for batch in model.batches] == [4, 4]


def test_all_lanes_share_the_end_of_a_long_call(make: Make) -> None:
    engine, model = make(lanes=2, budget=full_budget())
    assert rows(engine, [(str(i), words(4)) for i in range(600)]) == [float(i) for i in range(600)]
    sizes = [len(batch) for batch in model.batches]
    # Two slices of 256 are tokenized one after the other; the end of the first is not the end.
    assert sizes[:30] == [16] * 30
    assert max(sizes[-2:]) < 8


def test_overlapping_batches_count_once_in_run_ms() -> None:
    with calling() as call:
        job = Job([("0", "word")] * 5, call, lambda: None)
    # Two that overlap, one inside another that ends later, and a pause.
    for index, interval in enumerate([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (4.0, 7.0), (8.0, 9.0)]):
        job.deliver([index], np.zeros(1, np.float32), interval=interval, tokens=1)
    assert job.run_ms == 7_000.0


def test_tasks_and_threads_share_one_engine(make: Make) -> None:
    engine, _ = make()

    async def ask(number: int) -> list[float]:
        return (await engine.arun([(str(number), words(3))] * 5)).rows.tolist()

    async def all_of_them() -> list[list[float]]:
        return await asyncio.gather(*(ask(i) for i in range(30)))

    assert asyncio.run(all_of_them()) == [[float(i)] * 5 for i in range(30)]


@pytest.mark.parametrize("fault", ["fails", "unreadable", "huge"])
def test_only_the_call_with_the_faulty_item_fails(make: Make, fault: str) -> None:
    engine, model = make(budget=full_budget())
    model.may_run.clear()
    with ThreadPoolExecutor(6) as pool:
        pool.submit(rows, engine, [("0", "word")])
        assert model.runs.acquire(timeout=HANG_S)
        good = [pool.submit(rows, engine, [(str(i), "word")] * 3) for i in range(1, 5)]
        bad = pool.submit(rows, engine, [("5", "word"), ("6", f"word {fault}"), ("7", "word")])
        model.may_run.set()
        for i, future in enumerate(good, 1):
            assert future.result(HANG_S) == [float(i)] * 3
        with pytest.raises((ScoringError, ValueError)) as caught:
            bad.result(HANG_S)
    if fault != "unreadable":
        assert "item 1" in str(caught.value)
    assert rows(engine, [("8", "word")]) == [8.0], "the worker goes on"


def test_out_of_memory_halves_the_batch_and_lowers_the_budget(make: Make) -> None:
    budget = full_budget()
    engine, model = make(at_once=3, budget=budget)
    items = [(str(i), words(4)) for i in range(64)]
    assert rows(engine, items) == [float(i) for i in range(64)]
    assert budget.tokens < 64
    model.batches.clear()
    assert rows(engine, items) == [float(i) for i in range(64)]
    assert max(len(batch) for batch in model.batches) < 16


def test_an_item_that_never_fits_raises_with_advice(make: Make) -> None:
    engine, _ = make(at_once=0)
    with pytest.raises(OutOfMemoryError, match="item 0 alone does not fit into memory; lower"):
        engine.run([("1", "word")])


def test_a_wrong_number_of_rows_is_an_error(make: Make) -> None:
    engine, _ = make()
    with pytest.raises(ScoringError, match="gave 0 results for 1 items"):
        engine.run([("1", "short")])


def test_a_lost_device_fails_open_and_later_calls(make: Make) -> None:
    engine, model = make()
    model.may_run.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(engine.run, [("1", "lost")])
        assert model.runs.acquire(timeout=HANG_S)
        second = pool.submit(engine.run, [("2", "word")])
        until(lambda: engine.stats().waiting_items == 2)
        model.may_run.set()
        for future in (first, second):
            with pytest.raises(DeviceError, match="the device is lost"):
                future.result(HANG_S)
    with pytest.raises(DeviceError, match="the device is lost"):
        engine.run([("3", "word")])


def test_a_device_lost_during_prepare_fails_later_calls(make: Make) -> None:
    engine, _ = make()
    with pytest.raises(DeviceError, match="no page-locked memory"):
        engine.run([("1", "unpinned")] * 3)
    with pytest.raises(DeviceError, match="no page-locked memory"):
        engine.run([("1", "word")])


def test_a_failed_batch_is_retried_without_ended_jobs(make: Make) -> None:
    engine, model = make(budget=full_budget())
    model.may_run.clear()
    with ThreadPoolExecutor(3) as pool:
        pool.submit(rows, engine, [("0", "word")])
        assert model.runs.acquire(timeout=HANG_S)
        good = pool.submit(rows, engine, [("1", "alone")])
        until(lambda: engine.stats().prepared_items == 1)

        def run_with_deadline() -> list[float]:
            with calling(timeout_s=0.3):
                return rows(engine, [("2", "word")])

        late = pool.submit(run_with_deadline)
        until(lambda: engine.stats().prepared_items == 2)
        with pytest.raises(DeadlineError):
            late.result(HANG_S)
        model.may_run.set()
        assert good.result(HANG_S) == [1.0]


def test_items_are_copied_when_the_call_begins(make: Make) -> None:
    engine, model = make()
    model.may_run.clear()
    items = [("1", "word")]
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(rows, engine, items)
        assert model.runs.acquire(timeout=HANG_S)
        items.append(("2", "word"))
        model.may_run.set()
        assert future.result(HANG_S) == [1.0]


def test_close_fails_work_that_waits_off_the_loop(make: Make) -> None:
    engine, _ = make()
    begun, may_end = threading.Event(), threading.Event()

    async def wait() -> None:
        first = asyncio.create_task(
            engine.run_off_loop(lambda: (begun.set(), may_end.wait(HANG_S)))
        )
        await asyncio.to_thread(begun.wait, HANG_S)
        second = asyncio.create_task(engine.run_off_loop(lambda: "done"))
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.close)
        may_end.set()
        await first
        with pytest.raises(ClosedError):
            await second
        with pytest.raises(ClosedError):
            await engine.run_off_loop(lambda: "done")

    asyncio.run(wait())


def test_a_hung_device_fails_the_call(make: Make) -> None:
    engine, model = make(hang_s=0.2)
    model.may_run.clear()
    with pytest.raises(DeviceError, match="has not finished a batch for"):
        engine.run([("1", "word")])


def test_heartbeat_age_grows_while_a_batch_runs(make: Make) -> None:
    engine, model = make()
    assert engine.stats().heartbeat_age_s == 0.0
    model.may_run.clear()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(rows, engine, [("1", "word")])
        until(lambda: engine.stats().heartbeat_age_s > 0.05)
        model.may_run.set()
        assert future.result(HANG_S) == [1.0]
    until(lambda: engine.stats().heartbeat_age_s == 0.0)


def test_a_deadline_holds_while_another_call_has_the_device(make: Make) -> None:
    engine, model = make()
    model.may_run.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(rows, engine, [("1", "word")])
        assert model.runs.acquire(timeout=HANG_S)
        with calling(timeout_s=0.1), pytest.raises(DeadlineError):
            engine.run([("2", "word")])
        model.may_run.set()
        assert first.result(HANG_S) == [1.0]
    assert rows(engine, [("3", "word")]) == [3.0]
    assert ("2", "word") not in [item for batch in model.batches for item in batch]


def test_items_of_a_cancelled_task_do_not_run(make: Make) -> None:
    engine, model = make()
    model.may_run.clear()

    async def cancelled() -> None:
        running = asyncio.create_task(engine.arun([("1", "word")]))
        await asyncio.to_thread(model.runs.acquire)
        waiting = asyncio.create_task(engine.arun([("2", "word")] * 100))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        model.may_run.set()
        assert (await running).rows.tolist() == [1.0]
        assert (await engine.arun([("3", "word")])).rows.tolist() == [3.0]

    asyncio.run(cancelled())
    assert engine.stats().waiting_items == 0
    # One batch may have been laid out ahead; the rest of a cancelled call is dropped.
    assert sum(item == ("2", "word") for batch in model.batches for item in batch) <= 64


def test_close_fails_waiting_calls(make: Make) -> None:
    engine, model = make()
    model.may_run.clear()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(engine.run, [("1", "word")])
        assert model.runs.acquire(timeout=HANG_S)
        threading.Timer(0.1, model.may_run.set).start()
        engine.close()
        with pytest.raises(ClosedError):
            future.result(HANG_S)
    with pytest.raises(ClosedError):
        engine.run([("2", "word")])


def test_progress_is_reported_on_the_callers_thread_and_may_raise(make: Make) -> None:
    engine, model = make()
    seen: list[tuple[int, int, str]] = []
    run = model.run

    def run_after_progress(batch: list[Item]) -> FloatArray:
        # A caller that wakes up late sees the progress of several batches at once.
        until(lambda: bool(seen) or not model.batches)
        return run(batch)

    model.run = run_after_progress  # type: ignore[method-assign]

    def progress(done: int, total: int) -> None:
        seen.append((done, total, threading.current_thread().name))

    items = [(str(i), words(8)) for i in range(40)]
    with calling(on_progress=progress):
        engine.run(items)
    assert seen[-1][:2] == (40, 40)
    assert len(seen) > 1
    assert {name for *_, name in seen} == {threading.current_thread().name}

    def stop(done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with calling(on_progress=stop), pytest.raises(KeyboardInterrupt):
        engine.run(items)
    assert rows(engine, [("3", "word")]) == [3.0]


def until(condition: Callable[[], bool], limit_s: float = HANG_S) -> None:
    """Waits for something that another thread does."""
    event, waited = threading.Event(), 0.0
    while not condition():
        assert waited < limit_s
        event.wait(0.005)
        waited += 0.005

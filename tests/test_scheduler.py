"""The order of waiting jobs, and the token budget of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gpurerank.calls import Call
from gpurerank.engine.batch_budget import BatchBudget
from gpurerank.engine.job import Job
from gpurerank.engine.scheduler import Scheduler
from gpurerank.models.packing import Tokens

Item = tuple[str, str]


def tokens_of(items: Sequence[Item]) -> list[Tokens]:
    """One token for each word of the second text."""
    return [
        Tokens((np.zeros(len(text.split()), np.int32),), (0,), len(text.split()), False)
        for _, text in items
    ]


def words(count: int) -> str:
    return " ".join(["word"] * count)


def job_of(name: str, lengths: Sequence[int]) -> Job:
    return Job([(name, words(length)) for length in lengths], Call(), lambda: None)


def batches(scheduler: Scheduler, room: int, quantum: int) -> list[list[tuple[str, int]]]:
    taken_batches = []
    while True:
        scheduler.tokenize(room, quantum)
        batch = scheduler.take(room, quantum)
        if not batch:
            return taken_batches
        taken_batches.append(
            [(entry.job.items[entry.index][0], entry.tokens.length) for entry in batch]
        )


def test_small_jobs_do_not_wait_for_a_large_one() -> None:
    scheduler = Scheduler(tokens_of)
    scheduler.add(job_of("large", [4] * 500))
    for number in range(4):
        scheduler.add(job_of(f"small {number}", [4] * 4))
    taken_batches = batches(scheduler, room=32, quantum=32)
    last = {name: number for number, batch in enumerate(taken_batches) for name, _ in batch}
    assert max(last[f"small {number}"] for number in range(4)) <= 3
    assert last["large"] == len(taken_batches) - 1


def test_turns_are_fair_in_tokens_not_in_items() -> None:
    scheduler = Scheduler(tokens_of)
    scheduler.add(job_of("long", [16] * 200))
    scheduler.add(job_of("short", [2] * 1_600))
    taken_batches = batches(scheduler, room=64, quantum=32)
    shares = {"long": 0, "short": 0}
    for name, length in [entry for batch in taken_batches[:40] for entry in batch]:
        shares[name] += length
    assert abs(shares["long"] - shares["short"]) <= 64


@pytest.mark.parametrize("seed", range(5))
def test_every_item_is_taken_once_within_the_room(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scheduler = Scheduler(tokens_of)
    expected = []
    for number in range(30):
        lengths = rng.integers(1, 50, int(rng.integers(1, 400))).tolist()
        expected += [(str(number), length) for length in lengths]
        scheduler.add(job_of(str(number), lengths))
    taken_batches = batches(scheduler, room=128, quantum=64)
    assert sorted(entry for batch in taken_batches for entry in batch) == sorted(expected)
    sizes = [sum(length for _, length in batch) for batch in taken_batches]
    assert max(sizes) <= 128
    assert np.mean(sizes[:-3]) > 0.9 * 128


def test_an_item_over_the_room_is_a_batch_alone() -> None:
    scheduler = Scheduler(tokens_of)
    scheduler.add(job_of("a", [9, 3, 2]))
    assert batches(scheduler, room=5, quantum=5) == [[("a", 9)], [("a", 3), ("a", 2)]]


def test_the_budget_follows_the_rate_between_its_bounds() -> None:
    budget = BatchBudget(min_tokens=512, max_tokens=16_384, batch_s=0.05)
    assert budget.tokens == 512
    budget.record(512, 0.128)
    assert budget.tokens == 512, "4,000 tokens/s would be 200"
    for _ in range(40):
        budget.record(10_000, 0.05)
    assert 9_500 < budget.tokens <= 10_000
    budget.shrink(8_000)
    assert budget.tokens == 4_000
    for _ in range(2_000):
        budget.record(10_000, 0.05)
    assert budget.tokens > 9_500, "what was cut grows again"
    budget.cap(100)
    assert budget.tokens == 100

"""The same pairs in one call to the model in this process and to a pool of actors on Ray."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from gpurerank.benchmark.contenders import OURS, Contender
from gpurerank.benchmark.records import RayRecord
from gpurerank.benchmark.rounds import LEAST_ROUNDS, Budget, rotated, uncollected
from gpurerank.benchmark.subject import Subject
from gpurerank.benchmark.texts import REALISTIC

if TYPE_CHECKING:
    from gpurerank.cluster.pool import RayScorer

PAIRS = 20_000
# That tell how long a round takes, and let everyone begin warm.
SAMPLED = 200

Pairs = Sequence[tuple[str, str]]


def measure_ray(subject: Subject, pairs: int = PAIRS) -> None:
    """Fills the record's comparison with Ray.

    The cluster is the one that this process has joined, or else one of this machine alone.

    Args:
        subject: What is measured.
        pairs: Of one call.
    """
    ours = subject.named(OURS)
    if ours is None:
        return
    if importlib.util.find_spec("ray") is None:
        subject.note("no Ray: pip install 'gpurerank[ray]'")
        return
    record = subject.record.ray = RayRecord(pairs, _replicas(subject.device))
    budget = Budget(subject.options.limit_s, subject.most_rounds)
    ours.score(_pairs(subject, SAMPLED))
    round_s = 2 * pairs / SAMPLED * _seconds(ours.score, _pairs(subject, SAMPLED))[0]
    if not budget.allows(budget.needed_s(round_s)):
        record.skipped_s = round(budget.needed_s(round_s), 1)
        return
    _compare(subject, ours, record, budget.rounds(round_s))


def _compare(subject: Subject, ours: Contender, record: RayRecord, rounds: int) -> None:
    import ray

    from gpurerank.cluster.connection import start

    subject.say("ray: starting a cluster and the pool")
    started = time.perf_counter()
    joined = ray.is_initialized()
    if not joined:
        start()
    try:
        with _pool(subject, ours, record.replicas) as pool:
            record.started_s = round(time.perf_counter() - started, 3)
            pool.score_pairs(_pairs(subject, SAMPLED))
            ends = time.monotonic() + subject.options.limit_s
            for number in range(rounds):
                if number >= LEAST_ROUNDS and time.monotonic() > ends:
                    break
                subject.say(f"ray: round {number + 1} of at most {rounds}")
                _round(ours, pool, _pairs(subject, record.pairs), record, number)
    finally:
        if not joined:
            ray.shutdown()


def _round(ours: Contender, pool: RayScorer, pairs: Pairs, record: RayRecord, number: int) -> None:
    found: dict[str, list[float]] = {}
    ways = (("ray", pool.score_pairs, record.ray_s), ("here", ours.score, record.in_process_s))
    for name, score, times in rotated([[way] for way in ways], number):
        seconds, found[name] = _seconds(score, pairs)
        times.append(seconds)
    differences = (abs(a - b) for a, b in zip(found["ray"], found["here"], strict=True))
    record.largest_difference = max(record.largest_difference, *differences)


def _pool(subject: Subject, ours: Contender, replicas: int) -> RayScorer:
    from gpurerank.cluster.pool import RayScorer

    return RayScorer(
        subject.model.folder,
        replicas=replicas,
        device="cpu" if subject.device.type == "cpu" else "auto",
        dtype=ours.dtype,
        max_length=subject.max_length,
    )


def _replicas(device: torch.device) -> int:
    """As much of the machine as the model in this process has; on a CPU one thread for each."""
    return torch.cuda.device_count() if device.type == "cuda" else torch.get_num_threads()


def _pairs(subject: Subject, count: int) -> Pairs:
    return subject.texts.request(REALISTIC, count).pairs


def _seconds(score: Callable[[Pairs], list[float]], pairs: Pairs) -> tuple[float, list[float]]:
    with uncollected():
        started = time.perf_counter()
        scores = score(pairs)
        return round(time.perf_counter() - started, 6), scores

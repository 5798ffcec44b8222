"""The same pairs in one call to the model in this process and to a pool of Ray actors."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.concurrency import open_reranker, pairs_of
from benchmarks.peer_report import PeerModelRecord, RayRecord
from gpurerank import Reranker
from gpurerank.benchmark.model_under_test import MAX_LENGTH, ModelUnderTest
from gpurerank.benchmark.synthetic_text import REALISTIC
from gpurerank.benchmark.timing import MIN_ROUNDS, garbage_collection_paused, rotate

PAIRS = 20_000
# Pairs that warm up, and that a duration is estimated from.
SAMPLE_PAIRS = 200

Pairs = Sequence[tuple[str, str]]
ScorePairs = Callable[[Pairs], list[float]]


def measure_ray(model: ModelUnderTest, record: PeerModelRecord, pairs: int = PAIRS) -> None:
    """Records the comparison with Ray.

    Uses the cluster that this process has joined, or else starts one on this machine.

    Args:
        model: The model with its contender gpurerank.
        record: Receives the measurement.
        pairs: Pairs per call.
    """
    if importlib.util.find_spec("ray") is None:
        model.note("no Ray: pip install 'gpurerank[ray]'")
        return
    record.ray = RayRecord(pairs, _replica_count(model.device))
    with open_reranker(model) as reranker:
        _time_call(reranker.score_pairs, _new_pairs(model, SAMPLE_PAIRS))
        sample_s, _ = _time_call(reranker.score_pairs, _new_pairs(model, SAMPLE_PAIRS))
        needed_s = min(MIN_ROUNDS, model.max_rounds) * 2 * pairs / SAMPLE_PAIRS * sample_s
        if needed_s > model.options.limit_s:
            record.ray.skipped_s = round(needed_s, 1)
            return
        _compare(model, reranker, record.ray)


def _compare(model: ModelUnderTest, reranker: Reranker, record: RayRecord) -> None:
    import ray

    from gpurerank import RayScorer
    from gpurerank.cluster.connection import start

    model.log("ray: starting a cluster and the pool")
    started = time.perf_counter()
    has_joined = ray.is_initialized()
    if not has_joined:
        start()
    try:
        with RayScorer(
            model.folder,
            replicas=record.replicas,
            device="cpu" if model.device.type == "cpu" else "auto",
            dtype=model.dtype,
            max_length=MAX_LENGTH,
        ) as pool:
            record.started_s = round(time.perf_counter() - started, 3)
            pool.score_pairs(_new_pairs(model, SAMPLE_PAIRS))
            deadline = time.monotonic() + model.options.limit_s
            for number in range(model.max_rounds):
                if number >= MIN_ROUNDS and time.monotonic() > deadline:
                    break
                model.log(f"ray: round {number + 1} of at most {model.max_rounds}")
                pairs = _new_pairs(model, record.pairs)
                _run_round(reranker.score_pairs, pool.score_pairs, pairs, record, number)
    finally:
        if not has_joined:
            ray.shutdown()


def _run_round(
    in_process: ScorePairs, on_ray: ScorePairs, pairs: Pairs, record: RayRecord, number: int
) -> None:
    scores: list[list[float]] = []
    ways = ((on_ray, record.ray_s), (in_process, record.in_process_s))
    for score_pairs, times_s in rotate(ways, number):
        seconds, result = _time_call(score_pairs, pairs)
        times_s.append(seconds)
        scores.append(result)
    differences = (abs(a - b) for a, b in zip(*scores, strict=True))
    record.largest_difference = max(record.largest_difference, *differences)


def _replica_count(device: torch.device) -> int:
    """As much of the machine as the model in this process has; on a CPU one thread each."""
    return torch.cuda.device_count() if device.type == "cuda" else torch.get_num_threads()


def _new_pairs(model: ModelUnderTest, count: int) -> Pairs:
    return pairs_of([model.texts.request(REALISTIC, count)])


def _time_call(score_pairs: ScorePairs, pairs: Pairs) -> tuple[float, list[float]]:
    with garbage_collection_paused():
        started = time.perf_counter()
        scores = score_pairs(pairs)
        return round(time.perf_counter() - started, 6), scores

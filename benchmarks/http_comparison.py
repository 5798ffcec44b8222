"""The same requests to the model in this process and to the server; then an overload of it."""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.concurrency import PASSAGES_PER_CALL, open_reranker, realistic_requests
from benchmarks.http_load import LoadJob, Outcome, run_load
from benchmarks.peer_report import HttpRecord, OverloadRecord, PeerModelRecord
from benchmarks.server_process import ServerProcess, serving
from gpurerank import Reranker
from gpurerank.benchmark.model_under_test import ModelUnderTest
from gpurerank.benchmark.synthetic_text import Request
from gpurerank.benchmark.timing import MIN_ROUNDS, garbage_collection_paused, p95, rotate
from gpurerank.errors import RemoteError

CONNECTIONS = 64
# So many that most of the time all connections wait for a response.
REQUESTS_PER_CONNECTION = 3
# Requests to estimate the duration of a round.
SAMPLE_REQUESTS = 8
OVERLOAD_FACTOR = 2
MAX_OVERLOAD_S = 60.0
# The server's default lets 20 s of work wait: more than a short overload reaches.
QUEUED_S = 2.0
UNLIMITED_QUEUED_S = 600.0
RECOVERY_TIMEOUT_S = 30.0


def measure_http(model: ModelUnderTest, record: PeerModelRecord) -> None:
    """Records the throughput over HTTP and in this process, and what an overload does."""
    if importlib.util.find_spec("fastapi") is None:
        model.note("no HTTP: pip install 'gpurerank[serve]'")
        return
    record.http = HttpRecord(CONNECTIONS, PASSAGES_PER_CALL)
    with open_reranker(model) as reranker, tempfile.TemporaryDirectory() as folder:
        rounds = _round_count(model, reranker, record.http)
        if not rounds:
            return
        bodies = Path(folder) / "bodies"
        model.log("http: starting the server")
        with serving(_server_arguments(model, UNLIMITED_QUEUED_S)) as server:
            _compare(model, reranker, LoadSender(server, bodies), record.http, rounds)
        overload_s = min(MAX_OVERLOAD_S, model.options.limit_s)
        model.log(f"http: {OVERLOAD_FACTOR} times its capacity for {overload_s:g} s")
        with serving(_server_arguments(model, QUEUED_S)) as server:
            sender = LoadSender(server, bodies)
            record.http.overload = _overload(model, sender, record.http, overload_s)


class LoadSender:
    """Sends requests to a server from another process."""

    def __init__(self, server: ServerProcess, bodies: Path) -> None:
        self.server = server
        self._bodies = bodies

    def send(self, requests: Sequence[Request], connections: int, rate: float = 0) -> list[Outcome]:
        """Sends the requests; returns their outcomes in the order they were sent."""
        lines = [json.dumps({"query": r.query, "documents": r.passages}) for r in requests]
        self._bodies.write_text("\n".join(lines), encoding="utf-8")
        job = LoadJob(self.server.host, self.server.port, str(self._bodies), connections, rate)
        return sorted(run_load(job), key=lambda outcome: outcome.sent_s)


def _server_arguments(model: ModelUnderTest, queued_s: float) -> list[str]:
    arguments = ["--reranker", f"model={model.folder}", "--device", str(model.device)]
    arguments += ["--dtype", model.options.dtype, "--max-length", str(model.max_length)]
    return [*arguments, "--queued-s", str(queued_s)]


def _round_count(model: ModelUnderTest, reranker: Reranker, record: HttpRecord) -> int:
    """Rounds that fit into the time limit; 0, and an estimate in the record, if too few do."""
    requests = realistic_requests(model, 2 * SAMPLE_REQUESTS)
    _rank_in_threads(reranker, requests[:SAMPLE_REQUESTS])
    sample_s = _rank_in_threads(reranker, requests[SAMPLE_REQUESTS:])
    round_s = 2 * REQUESTS_PER_CONNECTION * CONNECTIONS / SAMPLE_REQUESTS * sample_s
    fewest = min(MIN_ROUNDS, model.max_rounds)
    if fewest * round_s > model.options.limit_s:
        record.skipped_s = round(fewest * round_s, 1)
        return 0
    return max(fewest, min(model.max_rounds, int(model.options.limit_s / round_s)))


def _compare(
    model: ModelUnderTest,
    reranker: Reranker,
    sender: LoadSender,
    record: HttpRecord,
    rounds: int,
) -> None:
    """Measures both ways in turn, each round with new requests."""
    count = CONNECTIONS * REQUESTS_PER_CONNECTION
    record.pairs = count * PASSAGES_PER_CALL
    sender.send(realistic_requests(model, CONNECTIONS), CONNECTIONS)
    deadline = time.monotonic() + model.options.limit_s
    for number in range(rounds):
        if number >= MIN_ROUNDS and time.monotonic() > deadline:
            break
        model.log(f"http: round {number + 1} of at most {rounds}")
        for way in rotate(["http", "in process"], number):
            requests = realistic_requests(model, count)
            if way == "in process":
                record.in_process_s.append(_rank_in_threads(reranker, requests))
                continue
            outcomes = sender.send(requests, CONNECTIONS)
            _check(outcomes)
            record.http_s.append(round(max(outcome.answered_s for outcome in outcomes), 6))
            record.http_ms += [round(outcome.taken_ms, 3) for outcome in outcomes]


def _check(outcomes: Sequence[Outcome]) -> None:
    failures = [outcome.status for outcome in outcomes if outcome.status != 200]
    if failures:
        raise RemoteError(
            f"{len(failures)} of {len(outcomes)} requests were answered with {failures[0]}"
        )


def _rank_in_threads(reranker: Reranker, requests: Sequence[Request]) -> float:
    """Seconds of as many threads as there are connections, each with its requests in turn."""

    def rank_in_turn(number: int) -> None:
        for request in requests[number::CONNECTIONS]:
            reranker.rank(request.query, request.passages)

    with ThreadPoolExecutor(CONNECTIONS) as threads, garbage_collection_paused():
        started = time.perf_counter()
        list(threads.map(rank_in_turn, range(CONNECTIONS)))
        return round(time.perf_counter() - started, 6)


def _overload(
    model: ModelUnderTest, sender: LoadSender, record: HttpRecord, seconds: float
) -> OverloadRecord:
    peak = record.pairs / statistics.median(record.http_s) / PASSAGES_PER_CALL
    # The server measures its rate and fills its caches, so that they do not count as growth.
    sender.send(realistic_requests(model, max(8, round(peak * 3))), connections=4)
    usual_ms = [o.taken_ms for o in sender.send(realistic_requests(model, 10), connections=1)]
    before = sender.server.resident_bytes()
    rate = OVERLOAD_FACTOR * peak
    outcomes = sender.send(realistic_requests(model, round(rate * seconds)), 0, rate)
    recovered_s = _recovery_s(model, sender, statistics.median(usual_ms))
    after = sender.server.resident_bytes()
    accepted = [outcome for outcome in outcomes if outcome.status == 200]
    refused = [outcome for outcome in outcomes if outcome.status == 429]
    return OverloadRecord(
        seconds=seconds,
        queued_s=QUEUED_S,
        offered_per_s=rate,
        peak_per_s=peak,
        goodput_per_s=len(accepted) / max((o.answered_s for o in accepted), default=1.0),
        sent=len(outcomes),
        accepted=len(accepted),
        refused=len(refused),
        without_retry_after=sum(not outcome.has_retry_after for outcome in refused),
        other_statuses=len(outcomes) - len(accepted) - len(refused),
        accepted_p95_ms=p95([outcome.taken_ms for outcome in accepted]),
        refused_p95_ms=p95([outcome.taken_ms for outcome in refused]),
        growth_percent=(after - before) / before * 100 if before else None,
        recovered_s=recovered_s,
    )


def _recovery_s(model: ModelUnderTest, sender: LoadSender, usual_ms: float) -> float | None:
    """Seconds until single requests take at most twice their usual time; None if they do not."""
    started = time.perf_counter()
    while time.perf_counter() - started < RECOVERY_TIMEOUT_S:
        (outcome,) = sender.send(realistic_requests(model, 1), connections=1)
        if outcome.status == 200 and outcome.taken_ms < 2 * usual_ms:
            return round(time.perf_counter() - started, 3)
    return None

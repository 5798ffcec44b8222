"""The same requests to the model in this process and to the server, and twice what it can do."""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpurerank.benchmark.contenders import OURS, Contender
from gpurerank.benchmark.load import LoadJob, Outcome, run_load
from gpurerank.benchmark.records import HttpRecord, OverloadRecord
from gpurerank.benchmark.rounds import LEAST_ROUNDS, Budget, p95, rotated, uncollected
from gpurerank.benchmark.server_process import ServerProcess, serving
from gpurerank.benchmark.subject import Subject
from gpurerank.benchmark.texts import REALISTIC, Request
from gpurerank.errors import RemoteError

CONNECTIONS = 64
PASSAGES = 20
# Of each connection in a round, so that most of the time all of them wait for an answer.
REQUESTS_EACH = 3
# Requests that tell how long a round takes.
SAMPLED = 8
OVERLOAD_TIMES = 2
# As long as a cell may take, and no longer than shows what does not settle.
MOST_OVERLOAD_S = 60.0
# The server's default lets 20 s of work wait: more than a short overload brings together.
QUEUED_S = 2.0
_NO_LIMIT_S = 600.0
_RECOVERY_S = 30.0


def measure_http(subject: Subject) -> None:
    """Fills the record's comparison over HTTP and the overload."""
    ours = subject.named(OURS)
    if ours is None:
        return
    if importlib.util.find_spec("fastapi") is None:
        subject.note("no HTTP: pip install 'gpurerank[serve]'")
        return
    record = subject.record.http = HttpRecord(CONNECTIONS, PASSAGES)
    budget = Budget(subject.options.limit_s, subject.most_rounds)
    round_s = _round_s(subject, ours)
    if not budget.allows(budget.needed_s(round_s)):
        record.skipped_s = round(budget.needed_s(round_s), 1)
        return
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder) / "bodies"
        subject.say("http: starting the server")
        with serving(_arguments(subject, _NO_LIMIT_S)) as server:
            _compare(subject, ours, _Load(server, bodies), record, budget.rounds(round_s))
        overload_s = min(MOST_OVERLOAD_S, subject.options.limit_s)
        subject.say(f"http: {OVERLOAD_TIMES} times its capacity for {overload_s:g} s")
        with serving(_arguments(subject, QUEUED_S)) as server:
            record.overload = _overload(subject, _Load(server, bodies), record, overload_s)


class _Load:
    """Sends requests to a server from a process of its own."""

    def __init__(self, server: ServerProcess, bodies: Path) -> None:
        self.server = server
        self._bodies = bodies

    def run(self, requests: Sequence[Request], connections: int, rate: float = 0) -> list[Outcome]:
        lines = [json.dumps({"query": r.query, "documents": r.passages}) for r in requests]
        self._bodies.write_text("\n".join(lines), encoding="utf-8")
        job = LoadJob(self.server.host, self.server.port, str(self._bodies), connections, rate)
        return sorted(run_load(job), key=lambda outcome: outcome.sent_s)


def _arguments(subject: Subject, queued_s: float) -> list[str]:
    device, dtype = str(subject.device), subject.options.dtype
    said = ["--reranker", f"model={subject.model.folder}", "--device", device, "--dtype", dtype]
    return [*said, "--max-length", str(subject.max_length), "--queued-s", str(queued_s)]


def _requests(subject: Subject, count: int) -> list[Request]:
    return [subject.texts.request(REALISTIC, PASSAGES) for _ in range(count)]


def _round_s(subject: Subject, ours: Contender) -> float:
    """About what one round takes: both ways, each all requests of all connections."""
    requests = _requests(subject, 2 * SAMPLED)
    _in_process_s(ours, requests[:SAMPLED])
    sample_s = _in_process_s(ours, requests[SAMPLED:])
    return 2 * REQUESTS_EACH * CONNECTIONS / SAMPLED * sample_s


def _compare(
    subject: Subject, ours: Contender, load: _Load, record: HttpRecord, rounds: int
) -> None:
    """Both ways in turns; each round's requests are new to either."""
    count = CONNECTIONS * REQUESTS_EACH
    record.pairs = count * PASSAGES
    load.run(_requests(subject, CONNECTIONS), CONNECTIONS)
    ends = time.monotonic() + subject.options.limit_s
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.monotonic() > ends:
            break
        subject.say(f"http: round {number + 1} of at most {rounds}")
        for way in rotated([["http"], ["in process"]], number):
            requests = _requests(subject, count)
            if way == "in process":
                record.in_process_s.append(_in_process_s(ours, requests))
                continue
            outcomes = load.run(requests, CONNECTIONS)
            _check(outcomes)
            record.http_s.append(round(max(o.answered_s for o in outcomes), 6))
            record.http_ms += [round((o.answered_s - o.sent_s) * 1e3, 3) for o in outcomes]


def _check(outcomes: Sequence[Outcome]) -> None:
    wrong = [outcome.status for outcome in outcomes if outcome.status != 200]
    if wrong:
        raise RemoteError(f"{len(wrong)} requests of {len(outcomes)} were answered {wrong[0]}")


def _in_process_s(ours: Contender, requests: Sequence[Request]) -> float:
    """Seconds that as many threads as there are connections take, each its requests in turn."""

    def rank_all(number: int) -> None:
        for request in requests[number::CONNECTIONS]:
            ours.rank(request.query, request.passages)

    with ThreadPoolExecutor(CONNECTIONS) as threads, uncollected():
        started = time.perf_counter()
        list(threads.map(rank_all, range(CONNECTIONS)))
        return round(time.perf_counter() - started, 6)


def _overload(subject: Subject, load: _Load, record: HttpRecord, seconds: float) -> OverloadRecord:
    peak = record.pairs / statistics.median(record.http_s) / PASSAGES
    # Lets the server measure its rate, and fills its memory with what it keeps anyway.
    load.run(_requests(subject, max(8, round(peak * 3))), connections=4)
    alone_ms = _alone_ms(subject, load)
    before = load.server.resident_bytes()
    rate = OVERLOAD_TIMES * peak
    outcomes = load.run(_requests(subject, round(rate * seconds)), 0, rate)
    recovered_s = _recovered_s(subject, load, statistics.median(alone_ms))
    after = load.server.resident_bytes()
    accepted = [o for o in outcomes if o.status == 200]
    refused = [o for o in outcomes if o.status == 429]
    return OverloadRecord(
        seconds=seconds,
        queued_s=QUEUED_S,
        offered_per_s=rate,
        peak_per_s=peak,
        goodput_per_s=len(accepted) / max((o.answered_s for o in accepted), default=1.0),
        sent=len(outcomes),
        accepted=len(accepted),
        refused=len(refused),
        without_retry_after=sum(not o.has_retry_after for o in refused),
        other_statuses=len(outcomes) - len(accepted) - len(refused),
        accepted_p95_ms=p95([(o.answered_s - o.sent_s) * 1e3 for o in accepted]),
        refused_p95_ms=p95([(o.answered_s - o.sent_s) * 1e3 for o in refused]),
        growth_percent=(after - before) / before * 100 if before else None,
        recovered_s=recovered_s,
    )


def _alone_ms(subject: Subject, load: _Load) -> list[float]:
    outcomes = load.run(_requests(subject, 10), connections=1)
    return [(o.answered_s - o.sent_s) * 1e3 for o in outcomes]


def _recovered_s(subject: Subject, load: _Load, usual_ms: float) -> float | None:
    """Seconds until single requests take at most twice their time alone; None if they never do."""
    started = time.perf_counter()
    while time.perf_counter() - started < _RECOVERY_S:
        (outcome,) = load.run(_requests(subject, 1), connections=1)
        if outcome.status == 200 and (outcome.answered_s - outcome.sent_s) * 1e3 < 2 * usual_ms:
            return round(time.perf_counter() - started, 3)
    return None

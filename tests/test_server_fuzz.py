"""No body breaks the server, keeps it busy, or changes what it answers to others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from tests.fuzzing import LIMITS, beside, bodies, send
from tests.serving import options_of, running
from tests.time_limits import HANG_S

BODIES = 1_000


def test_no_body_is_a_failure_of_the_server(model_folder: Callable[[str], str]) -> None:
    options = options_of(model_folder("bert"), limits=LIMITS)
    with running(options) as server, ThreadPoolExecutor(1) as threads:
        stop = threading.Event()
        others = threads.submit(beside, server, stop)
        try:
            statuses = send(server, bodies(seed=7), BODIES)
        finally:
            stop.set()
        assert others.result(HANG_S) > 5
        assert statuses.total() == BODIES
        assert statuses[200] > BODIES / 10
        assert {400, 413, 415, 422} < set(statuses)
        assert server.sample("gpurerank_queued_tokens") == 0
        assert server.service.in_flight == 0


def test_the_same_seed_makes_the_same_bodies() -> None:
    assert list(islice(bodies(3), 50)) == list(islice(bodies(3), 50))
    assert list(islice(bodies(3), 50)) != list(islice(bodies(4), 50))

"""A real server on loopback for the tests, and what they ask it with."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.routing import APIRoute

from gpurerank.server.models import ServedModels
from gpurerank.server.options import Named, ServerOptions
from gpurerank.server.run import Server, bind, server_of
from gpurerank.server.service import Service
from tests.time_limits import HANG_S

QUERY = "run a command"
DOCUMENTS = [
    "heapq.merge merges sorted inputs",
    "subprocess.run executes a command and returns its output",
    "the quick brown fox",
    "difflib compares two files",
]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens."""

    url: str
    service: Service
    server: Server
    client: httpx.Client
    ended: Future[None]

    @property
    def app(self) -> FastAPI:
        app: FastAPI = self.server.config.app  # type: ignore[assignment]
        return app

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.client.post(path, json=body, headers=headers)

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=HANG_S)

    def sample(self, name: str, **labels: str) -> float:
        """What the metrics say; 0 before the first time."""
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0


def options_of(folder: str, **others: Any) -> ServerOptions:
    """Options of a server with one tiny reranker and the embedded bi-encoder."""
    plain: dict[str, Any] = {
        "rerankers": (Named("tiny", folder),),
        "embedders": (Named("mini", "embedded"),),
        "port": 0,
        "device": "cpu",
        "dtype": "float32",
    }
    return ServerOptions(**{**plain, **others})


def routes_of(app: FastAPI) -> list[APIRoute]:
    """Every route of an application, those of its routers included."""
    routers = [getattr(route, "original_router", None) for route in app.routes]
    routes = [*app.routes, *(route for router in routers if router for route in router.routes)]
    return [route for route in routes if isinstance(route, APIRoute)]


@contextmanager
def running(
    options: ServerOptions, change: Callable[[ServedModels], None] = lambda models: None
) -> Iterator[Running]:
    """Serves in a thread; ``change`` may put other models in the place of those named."""
    options.check()
    bound = bind(options)
    models = ServedModels(replace(options))
    given = (dict(models.rerankers), dict(models.embedders))
    change(models)
    service = Service(options, models)
    server = server_of(service)
    threads = ThreadPoolExecutor(1)
    host, port = bound.getsockname()
    url = f"http://{host}:{port}"
    ended = threads.submit(lambda: asyncio.run(server.serve(sockets=[bound])))
    try:
        with httpx.Client(base_url=url, timeout=HANG_S) as client:
            eventually(lambda: server.started)
            yield Running(url, service, server, client, ended)
    finally:
        server.should_exit = True
        wait([ended], HANG_S)
        threads.shutdown(wait=False)
        models.rerankers, models.embedders = given
        models.close()
    # What the server raised, where the test has not asked for it.
    assert ended.done()
    if not service.lost:
        ended.result()


def eventually(claim: Callable[[], bool], within_s: float = HANG_S) -> None:
    """Waits for what another thread does."""
    pause = threading.Event()
    for _ in range(round(within_s / 0.01)):
        if claim():
            return
        pause.wait(0.01)
    raise AssertionError(f"not within {within_s} s")


class Gate:
    """A PairScorer that scores by length and waits until it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.calls = 0

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.calls += 1
        assert self.open.wait(HANG_S)
        return [1 / (2 + len(passage)) for _, passage in pairs]


class Failing:
    """A PairScorer that fails, and says what it was given."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        raise self._error(f"failed on {pairs}")

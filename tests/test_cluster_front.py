"""What stands in Serve's proxies, before an application that behaves as Serve does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from gpurerank.cluster.body import KEY, TravellingBody
from gpurerank.cluster.front import PATHS, Front, middlewares
from gpurerank.server.catalog import APIS
from gpurerank.server.routing import api_router

Proxy = Callable[[Scope, Receive, Send], Awaitable[None]]
BODY = b'{"query": "q", "documents": ["d"]}'


class Dying:
    """A proxy whose first replicas die, some after the head of their answer."""

    def __init__(self, deaths: int, *, with_head: bool = False) -> None:
        self.bodies: list[bytes] = []
        self.travelled: list[bytes | None] = []
        self._deaths = deaths
        self._with_head = with_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # As Serve's proxy does with a prefix.
        scope["root_path"] += "/prefix"
        assert scope["root_path"] == "/prefix"
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.travelled.append(scope.get(KEY))
        if len(self.bodies) > self._deaths:
            await JSONResponse({"read": len(body)})(scope, receive, send)
        elif self._with_head:
            await send({"type": "http.response.start", "status": 200, "headers": []})


async def ask(
    proxy: Proxy, path: str = "/v1/rerank", method: str = "POST", body: bytes = BODY
) -> httpx.Response:
    async def chunks() -> AsyncIterator[bytes]:
        size = -(-len(body) // 4)
        for start in range(0, len(body), size):
            yield body[start : start + size]

    transport = httpx.ASGITransport(proxy)
    async with httpx.AsyncClient(transport=transport, base_url="http://serve") as client:
        return await client.request(method, path, content=chunks())


@pytest.mark.parametrize("with_head", [False, True])
async def test_a_request_is_sent_again_whole(with_head: bool) -> None:
    proxy = Dying(2, with_head=with_head)
    answer = await ask(Front(proxy))
    assert (answer.status_code, answer.json()) == (200, {"read": len(BODY)})
    assert proxy.bodies == proxy.travelled == [BODY] * 3


async def test_what_kills_every_replica_is_given_up() -> None:
    proxy = Dying(100)
    answer = await ask(Front(proxy))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "lost"
    assert len(proxy.bodies) == 3


async def test_a_request_too_large_to_hold_is_sent_once() -> None:
    proxy = Dying(100)
    answer = await ask(Front(proxy, kept_bytes=20))
    assert answer.json()["error"]["code"] == "lost"
    assert proxy.bodies == [BODY]
    assert proxy.travelled == [None]


async def test_bodies_over_what_is_kept_together_are_sent_once() -> None:
    proxy = Dying(2)
    front = Front(proxy, kept_bytes_together=100_000)
    large = b" " * 1_000_000
    assert (await ask(front, body=large)).json()["error"]["code"] == "lost"
    assert (proxy.bodies, proxy.travelled) == ([large], [None])
    # What was kept of it is free again, and a body of a usual size is kept at any time.
    answer = await ask(front)
    assert answer.json() == {"read": len(BODY)}
    assert proxy.travelled == [None, BODY, BODY]


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    proxy = Dying(0)

    async def never() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    sent: list[dict[str, object]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/rerank", "headers": []}
    await Front(proxy, body_s=0.01)(scope, never, send)
    assert sent[0]["status"] == 408
    assert proxy.bodies == []


async def test_a_replica_reads_the_body_that_travelled() -> None:
    messages = [
        {"type": "http.request", "body": BODY, "more_body": False},
        {"type": "http.disconnect"},
    ]
    read: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert KEY not in scope
        read.extend([await receive(), await receive()])

    async def send(message: Any) -> None:
        raise AssertionError(message)

    await TravellingBody(app)({"type": "http", KEY: BODY}, receive, send)
    assert [message["type"] for message in read] == ["http.request", "http.disconnect"]
    assert read[0]["body"] == BODY


async def test_a_client_that_left_is_not_asked_for() -> None:
    messages = [
        {"type": "http.request", "body": BODY, "more_body": False},
        {"type": "http.disconnect"},
    ]
    attempts = 0

    async def receive() -> Any:
        return messages.pop(0)

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal attempts
        attempts += 1
        while (await receive())["type"] != "http.disconnect":
            pass

    async def send(message: object) -> None:
        raise AssertionError(message)

    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/rerank", "headers": []}
    await Front(proxy)(scope, receive, send)
    assert attempts == 1


@pytest.mark.parametrize(
    ("status", "answered", "retry_after"),
    [(404, 503, "5"), (408, 504, None), (429, 429, "1"), (503, 503, "5")],
)
async def test_a_refusal_of_serve_is_told_as_the_server_tells_it(
    status: int, answered: int, retry_after: str | None
) -> None:
    answer = await ask(Front(PlainTextResponse("of Serve", status)))
    assert answer.status_code == answered
    assert answer.headers.get("retry-after") == retry_after
    assert answer.json()["message"] == answer.json()["error"]["message"]
    assert "of Serve" not in answer.text


async def test_a_refusal_of_the_replica_passes() -> None:
    answer = await ask(Front(JSONResponse({"own": True}, 503)))
    assert (answer.status_code, answer.json()) == (503, {"own": True})


@pytest.mark.parametrize(("path", "method"), [("/orders", "POST"), ("/v1/rerank", "GET")])
async def test_what_is_not_scoring_passes_untouched(path: str, method: str) -> None:
    answer = await ask(Front(PlainTextResponse("of another", 404)), path, method)
    assert (answer.status_code, answer.text) == (404, "of another")


def test_every_path_on_which_models_work_is_known() -> None:
    routes = [route for route in api_router(APIS).routes if isinstance(route, APIRoute)]
    worked = {route.path for route in routes if "POST" in route.methods}
    assert {*PATHS, "/"} == worked


def test_serve_gets_it_as_middleware() -> None:
    found: list[object] = [middleware.cls for middleware in middlewares()]
    assert found == [Front]

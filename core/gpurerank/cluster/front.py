"""What stands in Ray Serve's proxies before the replicas, so that no request ends with one of them.

Serve answers a request whose replica died with a bare 500; where one died before it accepted,
Serve asks another, which waits for a body that is gone. Serve's own refusals are plain text. Here
the body travels with the request (``body.py``), and a request is sent again while nothing of an
answer was sent: scoring twice changes nothing. No other path is touched than those on which this
package's models work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpurerank.cluster.body import KEY
from gpurerank.server.catalog import MODEL_PATHS
from gpurerank.server.refusal import Refusal

# Serve's proxies ask this variable's value for middleware when they start.
VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH = "gpurerank.cluster.front:middlewares"
PATHS = MODEL_PATHS
# A request that kills whatever works on it is given up soon.
_ATTEMPTS = 3
# What a replica takes by default, and what a proxy keeps of all requests together.
_KEPT_BYTES = 32 << 20
_KEPT_BYTES_TOGETHER = 128 << 20
# Bytes of each body that are kept whatever the others hold.
_FREE_BYTES = 64 << 10
_BODY_S = 30.0

_OF_SERVE = {
    404: Refusal(
        503,
        "nothing is deployed at this path: not yet, not any more, or under another prefix",
        "not_deployed",
        retry_after_s=5,
    ),
    408: Refusal(504, "the request was not answered in time; send fewer passages", "deadline"),
    429: Refusal(429, "every replica is full; try again", "overloaded", retry_after_s=1),
    503: Refusal(503, "no replica can be had", "unavailable", retry_after_s=5),
}
_SLOW = Refusal(408, f"the body did not arrive within {_BODY_S:g} s", "slow_body")
_LOST = Refusal(503, "the replicas that worked on this were lost", "lost", retry_after_s=1)


def middlewares() -> list[Middleware]:
    """What a proxy puts before its own application."""
    return [Middleware(Front)]


class Front:
    """Retries requests that a dead replica left unanswered, and reshapes Serve's error responses.

    Args:
        app: The application of Serve's proxy.
        kept_bytes: Largest body that is kept for a retry; a larger one is sent to a replica once,
            while it arrives.
        kept_bytes_together: Most bytes kept of all bodies at the same time; while they are in use,
            further requests are sent once, too.
        body_s: Seconds that a body may take to arrive.
    """

    def __init__(
        self,
        app: ASGIApp,
        kept_bytes: int = _KEPT_BYTES,
        kept_bytes_together: int = _KEPT_BYTES_TOGETHER,
        body_s: float = _BODY_S,
    ) -> None:
        self._app = app
        self._body_s = body_s
        self._kept_bytes = kept_bytes
        self._memory = _Memory(kept_bytes_together)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and retries it if no replica answered."""
        if scope["type"] != "http" or not is_work(scope):
            await self._app(scope, receive, send)
            return
        request = _ReplayableRequest(receive, self._kept_bytes, self._memory)
        try:
            refusal = await self._send_to_replica(scope, request, send)
        finally:
            request.forget()
        if refusal is not None:
            await refusal.response()(scope, receive, send)

    async def _send_to_replica(
        self, scope: Scope, request: _ReplayableRequest, send: Send
    ) -> Refusal | None:
        """Sends a replica's response; returns the refusal to send instead, or None."""
        try:
            await asyncio.wait_for(request.read(), self._body_s)
        except asyncio.TimeoutError:
            return _SLOW
        for _ in range(_ATTEMPTS if request.whole else 1):
            if request.left:
                return None
            answer = _Answer(send)
            # The proxy writes into both, so each attempt gets its own.
            fresh = {**scope, "headers": list(scope["headers"])}
            if request.whole:
                fresh[KEY] = request.body()
            await self._app(fresh, request.replay(), answer)
            if answer.sent or answer.refused is not None:
                return answer.refused
        return None if request.left else _LOST


def is_work(scope: Scope) -> bool:
    """Whether a model works on a request, under whatever prefix."""
    path: str = scope["path"]
    return scope["method"] == "POST" and path.rstrip("/").endswith(PATHS)


@dataclass(slots=True)
class _Memory:
    """The bytes of bodies that a proxy keeps, and the most that it may."""

    max_bytes: int
    held_bytes: int = 0


class _ReplayableRequest:
    """A request whose body can be read from the beginning again."""

    def __init__(self, receive: Receive, kept_bytes: int, memory: _Memory) -> None:
        self.left = False
        self.whole = False
        self._receive = receive
        self._max_bytes = kept_bytes
        self._memory = memory
        self._held_bytes = 0
        self._messages: list[Message] = []

    async def read(self) -> None:
        """Reads the body to its end, or as far as it may be kept."""
        while not self.left and not self.whole and self._may_keep_more():
            message = await self._next()
            self._messages.append(message)
            size = len(message.get("body", b""))
            self._held_bytes += size
            self._memory.held_bytes += size
            self.whole = not self.left and not message.get("more_body", False)

    def forget(self) -> None:
        """Releases the memory of the body."""
        self._messages.clear()
        self._memory.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def _may_keep_more(self) -> bool:
        if self._memory.held_bytes > self._memory.max_bytes and self._held_bytes > _FREE_BYTES:
            return False
        return self._held_bytes <= self._max_bytes

    def body(self) -> bytes:
        """The bytes read so far."""
        return b"".join(message.get("body", b"") for message in self._messages)

    def replay(self) -> Receive:
        """A receive function that replays what was read, then continues with the rest."""
        read = iter(self._messages)

        async def receive() -> Message:
            return next(read, None) or await self._next()

        return receive

    async def _next(self) -> Message:
        message = await self._receive()
        self.left = self.left or message["type"] == "http.disconnect"
        return message


class _Answer:
    """Passes an answer on once a part of its body is there."""

    def __init__(self, send: Send) -> None:
        self.sent = False
        self.refused: Refusal | None = None
        self._send = send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Takes the next message of the answer."""
        if message["type"] == "http.response.start":
            self.refused = _of_serve(message)
            self._start = message
        elif self.refused is None:
            if self._start is not None:
                await self._send(self._start)
                self._start = None
            self.sent = True
            await self._send(message)


def _of_serve(start: Message) -> Refusal | None:
    """The refusal in place of one of Serve's own, which are all that is no JSON."""
    kind = dict(start["headers"]).get(b"content-type", b"")
    return None if kind.startswith(b"application/json") else _OF_SERVE.get(start["status"])

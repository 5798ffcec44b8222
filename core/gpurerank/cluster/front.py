"""What stands in Ray Serve's proxies before the replicas, so that no request ends with one of them.

Serve answers a request whose replica died with a bare 500, and its own refusals are plain text.
Here a request is sent again, to another replica, while nothing of an answer was sent: scoring
twice changes nothing. No other path is touched than those on which this package's models work.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpurerank.server.refusal import Refusal

# Serve's proxies ask this variable's value for middleware when they start.
VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH = "gpurerank.cluster.front:middlewares"
PATHS = (
    "/rerank", "/v1/rerank", "/v1/reranking", "/v2/rerank",
    "/score", "/v1/score", "/v1/rank",
    "/embed", "/embeddings", "/v1/embeddings", "/v1/embed", "/v2/embed",
)  # fmt: skip
# A request that kills whatever works on it is given up soon.
_ATTEMPTS = 3
# What a replica takes by default; of a larger request no copy is held.
_KEPT_BYTES = 32 << 20

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
_LOST = Refusal(503, "the replicas that worked on this were lost", "lost", retry_after_s=1)


def middlewares() -> list[Middleware]:
    """What a proxy puts before its own application."""
    return [Middleware(Front)]


class Front:
    """Sends a request again that got no answer, and gives Serve's refusals this package's shape."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, as often as it takes."""
        if scope["type"] != "http" or not is_work(scope):
            await self._app(scope, receive, send)
            return
        asked = _Asked(receive)
        for _ in range(_ATTEMPTS):
            answer = _Answer(send)
            # The proxy writes into both.
            fresh = {**scope, "headers": list(scope["headers"])}
            await self._app(fresh, asked.again(), answer)
            if answer.sent or asked.left:
                return
            if answer.refused is not None or not asked.kept:
                break
        refusal = answer.refused or _LOST
        await refusal.response()(scope, receive, send)


def is_work(scope: Scope) -> bool:
    """Whether a model works on a request, under whatever prefix."""
    path: str = scope["path"]
    return scope["method"] == "POST" and path.endswith(PATHS)


class _Asked:
    """A request that can be read from its beginning again."""

    def __init__(self, receive: Receive) -> None:
        self.left = False
        self.kept = True
        self._receive = receive
        self._messages: list[Message] = []
        self._bytes = 0

    def again(self) -> Receive:
        """Reads from the beginning, then goes on."""
        place = 0

        async def receive() -> Message:
            nonlocal place
            if place < len(self._messages):
                place += 1
                return self._messages[place - 1]
            message = await self._receive()
            self._keep(message)
            place = len(self._messages)
            return message

        return receive

    def _keep(self, message: Message) -> None:
        self.left = self.left or message["type"] == "http.disconnect"
        self._bytes += len(message.get("body", b""))
        self.kept = self.kept and self._bytes <= _KEPT_BYTES
        if self.kept:
            self._messages.append(message)
        else:
            self._messages.clear()


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

"""A real HTTP server on the loopback that speaks whatever shape a test gives it, and remembers."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from gpurerank.ranking import logit_of
from gpurerank.remote.address import Address
from gpurerank.remote.discovery import forget_server
from tests.conftest import WordOverlap
from tests.time_limits import HANG_S

# Where the environment names a proxy, the loopback is not asked through it.
os.environ["NO_PROXY"] = "127.0.0.1"


@dataclass(frozen=True)
class Asked:
    """One request as the server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """What the server answers; ``body`` is sent as JSON unless it is bytes."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    # Bytes announced beyond those that are sent, before the connection is closed.
    missing: int = 0
    # Nothing is sent; the server waits until the client leaves.
    silent: bool = False


Answer = Callable[[Asked], Reply]


class FakeServer:
    """What was asked, over how many connections, and who left before an answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections = 0
        self.arrived = threading.Event()
        self.left = threading.Event()
        # Once for each connection that ended.
        self.ended = threading.Semaphore(0)
        self.url = ""

    def posts(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "POST"]

    def gets(self) -> list[str]:
        return [asked.path for asked in self.asked if asked.method == "GET"]


class _Server(ThreadingHTTPServer):
    """Counts connections, each of which has a thread of its own."""

    daemon_threads = True

    def __init__(self, fake: FakeServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = fake

    def process_request(self, request: Any, client_address: Any) -> None:
        self.fake.connections += 1
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def finish(self) -> None:
        super().finish()
        self.server.fake.ended.release()

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        self.reply(None)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        raw = self.rfile.read(length)
        if len(raw) < length:
            self.close_connection = True
            return
        self.reply(json.loads(raw))

    def reply(self, body: Any) -> None:
        fake = self.server.fake
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        fake.asked.append(asked)
        reply = fake.answer(asked)
        fake.arrived.set()
        if reply.silent:
            self.wait_for_leave(fake)
        else:
            self.send(reply)

    def wait_for_leave(self, fake: FakeServer) -> None:
        self.connection.settimeout(HANG_S)
        if self.connection.recv(1) == b"":
            fake.left.set()
        self.close_connection = True

    def send(self, reply: Reply) -> None:
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(content) + reply.missing))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = self.close_connection or reply.missing > 0


@contextmanager
def serving(answer: Answer) -> Iterator[FakeServer]:
    """Serves an answer function on a free port of the loopback."""
    fake = FakeServer(answer)
    server = _Server(fake)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    # An earlier one may have had the same port.
    forget_server(Address.of(fake.url))
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def overlap_scores(query: str, passages: list[str]) -> list[float]:
    """What every fake answers: the score of the ten-line scorer of the other tests."""
    return [WordOverlap._score(query, passage) for passage in passages]


def vector(text: str, dim: int = 3) -> list[float]:
    """A vector of a text, of no particular length, in float32."""
    numbers = [float(len(text) + 1), float(text.count("e")), float(text.count("a"))][:dim]
    return np.array(numbers, dtype=np.float32).tolist()


def _sorted(query: str, passages: list[str], name: str) -> list[dict[str, Any]]:
    rows = [
        {"index": index, name: score} for index, score in enumerate(overlap_scores(query, passages))
    ]
    return sorted(rows, key=lambda row: -row[name])


def _v1(asked: Asked, key: str = "results") -> Reply:
    body = asked.body
    rows = _sorted(body["query"], body["documents"], "relevance_score")
    most = body.get("top_n") or body.get("top_k")
    return Reply({"id": "1", "model": "served", key: rows[:most], "usage": {"total_tokens": 1}})


def _tei(asked: Asked) -> Reply:
    body = asked.body
    if len(body["texts"]) > 4:
        error = f"batch size {len(body['texts'])} > maximum allowed batch size 4"
        return Reply({"error": error, "error_type": "Validation"}, 422)
    rows = _sorted(body["query"], body["texts"], "score")
    if body["raw_scores"]:
        rows = [{**row, "score": float(np.float32(logit_of(row["score"])))} for row in rows]
    return Reply(rows)


def _score(asked: Asked) -> Reply:
    scores = overlap_scores(asked.body["text_1"], asked.body["text_2"])
    data = [{"index": i, "object": "score", "score": score} for i, score in enumerate(scores)]
    return Reply({"object": "list", "model": "served", "data": data, "usage": {}})


def _embeddings(asked: Asked) -> Reply:
    encode: Callable[[str], Any] = vector
    if "base64" in (asked.body.get("encoding_format"), asked.body.get("embedding_type")):
        encode = lambda text: base64.b64encode(  # noqa: E731
            np.array(vector(text), dtype="<f4").tobytes()
        ).decode()
    data = [
        {"object": "embedding", "index": index, "embedding": encode(text)}
        for index, text in enumerate(asked.body["input"])
    ]
    # The order of the list says nothing; the index does.
    return Reply({"object": "list", "data": data[::-1], "model": "served"})


def _cohere_embed(asked: Asked) -> Reply:
    vectors = [vector(text) for text in asked.body["texts"]]
    return Reply({"id": "1", "embeddings": {"float": vectors}, "texts": asked.body["texts"]})


def _models(owner: str) -> Answer:
    return lambda asked: Reply({"object": "list", "data": [{"id": "served", "owned_by": owner}]})


_TEI_INFO = {"model_id": "served", "model_type": {"reranker": {}}, "max_client_batch_size": 4}

# By kind of server: each path that it has, and what it answers there.
KINDS: dict[str, dict[str, Answer]] = {
    "gpurerank": {
        "/info": lambda _: Reply(
            {"model_id": "served", "server": "gpurerank", "max_client_batch_size": 1000}
        ),
        "/v2/rerank": _v1,
        "/v2/embed": _cohere_embed,
    },
    "tei": {
        "/info": lambda _: Reply(_TEI_INFO),
        "/rerank": _tei,
        "/embed": lambda asked: Reply([vector(text) for text in asked.body["inputs"]]),
    },
    "vllm": {"/v1/models": _models("vllm"), "/score": _score, "/v1/embeddings": _embeddings},
    "infinity": {
        "/models": _models("infinity"),
        "/rerank": _v1,
        "/embeddings": _embeddings,
    },
    "cohere": {"/v2/rerank": _v1, "/v2/embed": _cohere_embed},
    "cohere_v1": {"/v1/rerank": _v1},
    "jina": {"/v1/rerank": _v1, "/v1/embeddings": _embeddings},
    "voyage": {
        "/v1/rerank": lambda asked: _v1(asked, "data"),
        "/v1/embeddings": _embeddings,
    },
    "openai": {"/v1/models": _models("someone"), "/v1/rerank": _v1, "/v1/embeddings": _embeddings},
}


def speaking(kind: str) -> Answer:
    """What a server of a kind answers; 404 to every other path."""

    def answer(asked: Asked) -> Reply:
        known = KINDS[kind].get(asked.path)
        return Reply({"detail": "Not Found"}, 404) if known is None else known(asked)

    return answer


def rerank_always(reply: Reply) -> Answer:
    """Says that it is gpurerank's own, and answers every ranking the same."""
    info = KINDS["gpurerank"]["/info"]
    return lambda asked: info(asked) if asked.path == "/info" else reply

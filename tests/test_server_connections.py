"""Connections that are slow, endless, broken, or left; and how the server ends."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from gpurerank import Reranker
from gpurerank.server.models import ServedModels
from gpurerank.server.options import Limits
from tests.serving import DOCUMENTS, QUERY, Gate, Running, eventually, options_of, running
from tests.time_limits import HANG_S

ASKED = {"query": QUERY, "documents": DOCUMENTS}
LIMITS = Limits(header_s=1.0, body_s=1.0, body_bytes=1 << 20, header_bytes=8_000)
START = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(model_folder: Callable[[str], str]) -> Iterator[Running]:
    with running(options_of(model_folder("bert"), limits=LIMITS, embedders=())) as found:
        yield found


def to_the_end(connection: socket.socket) -> bytes:
    """What the server sends until it closes."""
    found = b""
    while part := connection.recv(65_536):
        found += part
    return found


def request_of(body: object) -> bytes:
    text = json.dumps(body).encode()
    return START + b"Content-Length: %d\r\n\r\n" % len(text) + text


@pytest.mark.parametrize("begun", [b"", b"POST /v1/re", START])
def test_slow_headers_are_closed_by_their_deadline(server: Running, begun: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(begun)
        assert to_the_end(connection) == b""


def test_headers_that_drip_are_closed_too(server: Running) -> None:
    with server.connect() as connection:
        connection.settimeout(0.02)
        connection.sendall(START)
        closed = False
        # Fewer bytes than the limit, over more time than the deadline.
        for _ in range(800):
            try:
                connection.sendall(b"X-A: b\r\n")
                closed = connection.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
            if closed:
                break
        assert closed


def test_the_second_request_of_a_connection_has_a_deadline_too(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(request_of(ASKED))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"POST /v1")
        assert to_the_end(connection).count(b"HTTP/1.1") == 0


@pytest.mark.parametrize(
    "headers", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
def test_a_slow_body_is_answered_408_and_closed(server: Running, headers: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(START + headers)
        answer = to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"slow_body" in answer


@pytest.mark.parametrize("parts", [[9_000], [2_100] * 4])
def test_headers_over_their_limit_are_400(server: Running, parts: list[int]) -> None:
    with server.connect() as connection:
        connection.sendall(START)
        for size in parts:
            connection.sendall(b"X-A: " + b"b" * size + b"\r\n")
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 400")


def test_headers_that_come_at_once_are_held_to_the_limit_too(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(START + b"X-A: " + b"b" * 9_000 + b"\r\n\r\n")
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_large_body_is_refused_before_it_is_read(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(START + b"Content-Length: 30000000\r\n\r\n")
        answer = to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"too_large" in answer


def test_a_large_chunked_body_is_refused_before_it_ends(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            while sent < 30 << 20:
                connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
                sent += 65_536
        except OSError:
            pass
        assert sent < 20 << 20
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")


def test_a_client_that_sends_on_still_reads_413(server: Running) -> None:
    body = {**ASKED, "documents": ["a" * 1_000] * 5_000}
    for _ in range(5):
        assert server.post("/v1/rerank", body).status_code == 413


def test_no_protocol_at_all_is_400(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert to_the_end(connection).startswith(b"HTTP/1.1 400")


def test_answers_are_sent_at_once_on_a_connection_that_is_kept(server: Running) -> None:
    """Else each waits 40 ms for the client's acknowledgement of the one before."""
    with server.connect() as connection:
        connection.sendall(request_of(ASKED))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        for protocol in list(server.server.server_state.connections):
            accepted = protocol.transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_an_upgrade_that_is_not_spoken_is_ignored(server: Running) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    with server.connect() as connection:
        request = request_of(ASKED).replace(b"Content-Type", upgrade + b"Content-Type")
        connection.sendall(request)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


@contextmanager
def closed(server: Running, content: bytes) -> Iterator[None]:
    """A client that has sent a request and then closes its connection."""
    with server.connect() as connection:
        connection.sendall(content)
        yield


@contextmanager
def killed(server: Running, content: bytes) -> Iterator[None]:
    """The same in a process of its own, that ends by SIGKILL."""
    script = (
        "import socket, sys; host, port = sys.argv[1:];"
        " connection = socket.create_connection((host, int(port)));"
        " connection.sendall(sys.stdin.buffer.read()); connection.recv(1)"
    )
    address = server.url.removeprefix("http://").split(":")
    command = [sys.executable, "-c", script, *address]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as client:
        assert client.stdin is not None
        client.stdin.write(content)
        client.stdin.close()
        yield
        client.kill()


@pytest.mark.parametrize("client", [closed, killed])
def test_a_client_that_leaves_cancels_its_work_at_the_next_batch(
    client: Callable[[Running, bytes], AbstractContextManager[None]],
) -> None:
    many = {"query": QUERY, "documents": [f"{d} {i} " * 12 for i in range(400) for d in DOCUMENTS]}
    with running(options_of("embedded", embedders=())) as server:
        engine = server.service.models.rerankers["tiny"]

        def waiting() -> int:
            stats = engine.stats()
            assert stats is not None
            return stats.waiting_items

        with client(server, request_of(many)):
            eventually(lambda: waiting() > 0)
            assert server.post("/v1/rerank", ASKED).status_code == 200
            assert waiting() > 0
        eventually(lambda: server.sample("gpurerank_cancelled_total") == 1)
        eventually(lambda: waiting() == 0)
        stats = engine.stats()
        assert stats is not None
        assert stats.items < len(many["documents"])
        assert server.post("/v1/rerank", ASKED).status_code == 200
        assert server.sample("gpurerank_requests_total", path="/v1/rerank", status="499") == 1
        assert server.sample("gpurerank_queued_tokens") == 0


def gated(gate: Gate) -> Callable[[ServedModels], None]:
    def change(models: ServedModels) -> None:
        models.rerankers = {"gate": Reranker.from_scorer(gate, name="gate")}

    return change


def test_while_it_drains_what_was_accepted_is_answered(model_folder: Callable[[str], str]) -> None:
    gate = Gate()
    options = options_of(model_folder("bert"), embedders=())
    with running(options, gated(gate)) as server, ThreadPoolExecutor(2) as threads:
        asked = threads.submit(server.post, "/v1/rerank", ASKED)
        eventually(lambda: gate.calls == 1)
        begun = server.connect()
        text = json.dumps(ASKED).encode()
        begun.sendall(START + b"Content-Length: %d\r\n\r\n" % len(text))
        eventually(lambda: server.service.in_flight == 2)
        server.server.should_exit = True
        eventually(lambda: server.service.draining)
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        assert httpx.get(f"{server.url}/livez").status_code == 200
        late = httpx.post(f"{server.url}/v1/rerank", json=ASKED)
        assert late.status_code == 503
        assert int(late.headers["retry-after"]) > 0
        assert late.headers["connection"] == "close"
        gate.open.set()
        begun.sendall(text)
        assert to_the_end(begun).startswith(b"HTTP/1.1 200")
        assert asked.result(HANG_S).status_code == 200
        begun.close()


def test_the_drain_limit_ends_what_takes_longer(model_folder: Callable[[str], str]) -> None:
    gate = Gate()
    options = options_of(model_folder("bert"), embedders=(), limits=Limits(drain_s=0.2))
    try:
        with running(options, gated(gate)) as server, ThreadPoolExecutor(1) as threads:
            asked = threads.submit(server.post, "/v1/rerank", ASKED)
            eventually(lambda: gate.calls == 1)
            server.server.should_exit = True
            answer = asked.result(HANG_S)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "draining"
            gate.open.set()
    finally:
        gate.open.set()


def test_work_over_its_time_is_504(model_folder: Callable[[str], str]) -> None:
    gate = Gate()
    options = options_of(model_folder("bert"), embedders=(), limits=Limits(answer_s=0.1))
    with running(options, gated(gate)) as server:
        assert server.post("/v1/rerank", ASKED).status_code == 504
        gate.open.set()


# In the others of its first five turns the loop has not accepted yet, or has read already.
@pytest.mark.parametrize("turns", [1, 2])
def test_who_comes_as_the_server_ends_is_told(
    turns: int, model_folder: Callable[[str], str]
) -> None:
    with running(options_of(model_folder("bert"), embedders=())) as server:
        loop = server.server.servers[0].get_loop()
        come: list[socket.socket] = []

        def arrive() -> None:
            come.append(server.connect())
            come[0].sendall(request_of(ASKED))
            end_after(turns)

        def end_after(turns: int) -> None:
            if turns:
                loop.call_soon(end_after, turns - 1)
                return
            server.server.should_exit = True
            # Until the server looks whether it is to end, which it then does at once.
            time.sleep(0.2)

        loop.call_soon_threadsafe(arrive)
        server.ended.result(HANG_S)
        with come[0] as connection:
            assert to_the_end(connection)[:13] in (b"HTTP/1.1 200 ", b"HTTP/1.1 503 ")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_only_stops_sending_gets_its_answer(server: Running, version: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(request_of(ASKED).replace(b"HTTP/1.1", b"HTTP/" + version))
        connection.shutdown(socket.SHUT_WR)
        answer = to_the_end(connection).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert len(json.loads(answer.split(b"\r\n\r\n", 1)[1])["results"]) == len(DOCUMENTS)


def test_requests_that_are_pipelined_and_end_the_sending_get_their_answers(
    server: Running,
) -> None:
    with server.connect() as connection:
        connection.sendall(request_of(ASKED) * 3)
        connection.shutdown(socket.SHUT_WR)
        answers = to_the_end(connection)
    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.count(b'"results":[') == 3


def test_requests_of_one_connection_share_no_call(server: Running) -> None:
    short = {"query": QUERY, "passages": DOCUMENTS}
    alone = server.post("/v1/rank", short).json()["usage"]
    # Over 64 KiB the server pauses a connection, and who reads on lends it a context.
    for _ in range(5):
        long = {"query": QUERY, "passages": ["command " * 500 for _ in range(30)]}
        assert server.post("/v1/rank", long).status_code == 200
        assert server.post("/v1/rank", short).json()["usage"] == alone

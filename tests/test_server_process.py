"""A server as a process of its own: how it ends, and what it does without file descriptors."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import DOCUMENTS, QUERY, eventually
from tests.time_limits import HANG_S

REQUEST = {"query": QUERY, "documents": DOCUMENTS}
# Minutes of work for the embedded model on a few cores.
LONG_REQUEST = {
    "query": QUERY,
    "documents": [f"{i} " + "heapq.merge merges sorted inputs " * 40 for i in range(5_000)],
}


class ServerProcess:
    """``gpurerank serve`` on loopback, with its log in a file."""

    def __init__(self, folder: Path, options: Sequence[str], open_files: int | None) -> None:
        self._log = folder / "log"
        command = [sys.executable, "-m", "gpurerank.cli", "serve", "--port", "0", *options]
        address = folder / "address"
        limit = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "-"] if open_files else []
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*limit, *command, "--address-file", str(address)],
                stderr=log,
                env={**os.environ, "COLUMNS": "120"},
            )
        eventually(lambda: self.process.poll() is not None or "listening on" in self.log())
        assert self.process.poll() is None, self.log()
        self.url = address.read_text().strip()
        assert f":{self.url.rpartition(':')[2]}" in self.log()

    def log(self) -> str:
        """Everything that was written to standard error."""
        return self._log.read_text()

    def post(self, body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/rerank", json=body, timeout=HANG_S)

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=HANG_S)

    def seconds_to_end(self, *signals: int) -> float:
        """Sends signals, half a second apart, and waits for the end of the process."""
        started = time.monotonic()
        for number, each in enumerate(signals):
            if number:
                time.sleep(0.5)
                started = time.monotonic()
            self.process.send_signal(each)
        self.process.wait(HANG_S)
        return time.monotonic() - started


@contextmanager
def started(folder: Path, *options: str, open_files: int | None = None) -> Iterator[ServerProcess]:
    server = ServerProcess(folder, options, open_files)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(HANG_S)


@contextmanager
def working(server: ServerProcess) -> Iterator[Future[httpx.Response]]:
    """A request whose work takes minutes has begun to run."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, LONG_REQUEST)

        def runs() -> bool:
            metrics = httpx.get(f"{server.url}/metrics", timeout=HANG_S).text
            waiting = [line for line in metrics.splitlines() if "waiting_items{" in line]
            return any(float(line.split()[-1]) > 0 for line in waiting)

        eventually(runs)
        yield answer


def test_a_process_ends_within_its_drain_limit_whatever_it_works_on(tmp_path: Path) -> None:
    with started(tmp_path, "--drain-s", "3") as server, working(server) as answer:
        # Over the 3 s by what a busy machine takes to notice; the work would take minutes.
        assert server.seconds_to_end(signal.SIGTERM) < 3 + 10
        assert server.process.returncode == 0
        assert answer.result(HANG_S).status_code == 503
        assert answer.result().json()["error"]["code"] == "draining"


def test_a_second_interrupt_ends_a_process_at_once(tmp_path: Path) -> None:
    with started(tmp_path, "--drain-s", "250") as server, working(server) as answer:
        assert server.seconds_to_end(signal.SIGINT, signal.SIGINT) < 10
        assert server.process.returncode == 130
        assert isinstance(answer.exception(HANG_S), httpx.HTTPError)


def test_an_idle_process_ends_at_once_also_with_open_connections(tiny: str, tmp_path: Path) -> None:
    with started(tmp_path, "--reranker", tiny, "--drain-s", "250") as server, ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=HANG_S))
        assert client.post(f"{server.url}/v1/rerank", json=REQUEST).status_code == 200
        for _ in range(5):
            stack.enter_context(server.connect())
        assert server.seconds_to_end(signal.SIGTERM) < 10
        assert server.process.returncode == 0


def test_a_client_that_does_not_read_is_cut_off_by_the_drain_limit(
    tiny: str, tmp_path: Path
) -> None:
    texts = [f"{i} word" for i in range(3_000)]
    body = json.dumps({"input": texts}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    options = ("--reranker", tiny, "--embedder", "embedded", "--drain-s", "3")
    with started(tmp_path, *options) as server, server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: '"path": "/v1/embeddings"' in server.log())
        assert server.seconds_to_end(signal.SIGTERM) < 3 + 10
        assert server.process.returncode == 0


def test_sigterm_under_load_answers_what_was_accepted(tiny: str, tmp_path: Path) -> None:
    large = {"query": QUERY, "documents": [d * 8 for d in DOCUMENTS] * 30}
    answered: list[int] = []
    torn: list[Exception] = []
    stop = threading.Event()

    def ask(server: ServerProcess) -> None:
        while not stop.is_set():
            try:
                answered.append(server.post(large).status_code)
            except httpx.ConnectError:
                return
            except httpx.HTTPError as error:
                torn.append(error)
                return

    with started(tmp_path, "--reranker", tiny, "--drain-s", "200") as server:
        threads = [threading.Thread(target=ask, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(answered) > 4)
        # Whoever is killed in the middle of a request takes nobody along.
        script = f"import httpx; httpx.post('{server.url}/v1/rerank', json={large!r})"
        killed = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        eventually(lambda: len(answered) > 12)
        killed.kill()
        killed.wait(HANG_S)
        before = len(answered)
        eventually(lambda: len(answered) > before + 4)
        assert server.seconds_to_end(signal.SIGTERM) < 100
        stop.set()
        for thread in threads:
            thread.join(HANG_S)
        log = server.log()
    assert server.process.returncode == 0, log
    assert set(answered) <= {200, 503}
    assert not torn
    assert "draining" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("exhausted", [False, True])
def test_idle_connections_beyond_the_open_files_limit_keep_nobody_out(
    tiny: str, tmp_path: Path, exhausted: bool
) -> None:
    """By the limit of connections, and where descriptors run out before it is reached."""
    if exhausted and not hasattr(resource, "prlimit"):
        pytest.skip("only Linux can limit another process")
    open_files = 300 if exhausted else 120
    with started(tmp_path, "--reranker", tiny, open_files=open_files) as server:
        if exhausted:
            in_use = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
            limits = (in_use + 20, in_use + 20)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        with ExitStack() as stack:
            for _ in range(150):
                stack.enter_context(server.connect())
            assert server.post(REQUEST).status_code == 200
            assert server.post(REQUEST).status_code == 200
        assert server.post(REQUEST).status_code == 200
        warnings = [line for line in server.log().splitlines() if '"warning"' in line]
        message = "could not be accepted" if exhausted else "no more connections are accepted"
        assert message in warnings[0]
        assert len(warnings) <= 4
        assert "Traceback" not in server.log()


def test_the_container_checks_the_health_of_the_port_that_is_served(
    tiny: str, tmp_path: Path
) -> None:
    """The check runs with the same variables as the server, whose port an option may change."""
    lines = (Path(__file__).parent.parent / "deploy/Dockerfile").read_text().splitlines()
    command = json.loads(next(line for line in lines if "/readyz" in line and "CMD" in line)[8:])
    variables = {
        "GPURERANK_PORT": "1",
        "GPURERANK_ADDRESS_FILE": str(tmp_path / "address"),
    }

    def check() -> int:
        return subprocess.run(
            [sys.executable, *command[1:]],
            env={**os.environ, **variables},
            stderr=subprocess.DEVNULL,
            timeout=HANG_S,
        ).returncode

    assert check() != 0
    with started(tmp_path, "--reranker", tiny, "--host", "0.0.0.0", "--open-to-all") as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert check() == 0
    assert check() != 0


def test_connections_over_the_open_files_limit_are_refused_at_the_start() -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    command = ["serve", "--max-connections", str(files)]
    ended = subprocess.run(
        [sys.executable, "-m", "gpurerank.cli", *command],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert ended.returncode == 1
    assert f"max_connections is {files}, over the" in ended.stderr
    assert "ulimit -n" in ended.stderr
    assert "loading" not in ended.stderr

"""Load on an HTTP server, as a process of its own: ``python -m gpurerank.benchmark.load``.

Reads one job as JSON on standard input and writes the outcomes as JSON on standard output. Nothing
but asyncio's streams, so that it takes as little as possible of the cores that it shares.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_PATH = "/v1/rerank"


@dataclass(frozen=True, slots=True)
class LoadJob:
    """What is sent.

    Attributes:
        host: Of the server.
        port: Of the server.
        bodies: A file with one JSON body a line.
        connections: Kept, each with one request at a time; 0 for as many as the rate asks for.
        rate: Requests a second, whether or not those before are answered; 0 for as fast as
            ``connections`` are answered.
    """

    host: str
    port: int
    bodies: str
    connections: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it was sent and answered, in seconds from the first on."""

    sent_s: float
    answered_s: float
    status: int
    has_retry_after: bool


def run_load(job: LoadJob) -> list[Outcome]:
    """Runs a job in a process of its own.

    Raises:
        OSError: The server could not be reached, or closed a connection.
    """
    command = [sys.executable, "-m", "gpurerank.benchmark.load"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or ["the load generator failed"])[-1])
    return [Outcome(*each) for each in json.loads(done.stdout)]


class _Connection:
    """One connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, job: LoadJob) -> _Connection:
        return cls(*await asyncio.open_connection(job.host, job.port))

    async def ask(self, request: bytes) -> tuple[int, bool]:
        """Status, and whether Retry-After came with it."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(head.split(b" ", 2)[1]), b"\r\nretry-after:" in head

    def close(self) -> None:
        self._writer.close()


async def _send(job: LoadJob, requests: Sequence[bytes]) -> list[Outcome]:
    connections = [await _Connection.open(job) for _ in range(job.connections)]
    started = time.perf_counter()
    outcomes: list[Outcome] = []

    async def ask(connection: _Connection, request: bytes) -> None:
        sent_s = time.perf_counter() - started
        status, has_retry_after = await connection.ask(request)
        outcomes.append(Outcome(sent_s, time.perf_counter() - started, status, has_retry_after))

    async def keep_asking(number: int) -> None:
        for request in requests[number :: job.connections]:
            await ask(connections[number], request)

    async def ask_once(request: bytes) -> None:
        connection = connections.pop() if connections else await _Connection.open(job)
        await ask(connection, request)
        connections.append(connection)

    if not job.rate:
        await asyncio.gather(*map(keep_asking, range(job.connections)))
    else:
        tasks = []
        for number, request in enumerate(requests):
            await asyncio.sleep(max(0.0, number / job.rate - (time.perf_counter() - started)))
            tasks.append(asyncio.ensure_future(ask_once(request)))
        await asyncio.gather(*tasks)
    for connection in connections:
        connection.close()
    return outcomes


def _requests(job: LoadJob) -> list[bytes]:
    head = f"POST {_PATH} HTTP/1.1\r\nHost: {job.host}\r\nContent-Type: application/json\r\n"
    bodies = Path(job.bodies).read_bytes().splitlines()
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


def main() -> None:
    """Does the job that standard input tells."""
    job = LoadJob(**json.load(sys.stdin))
    outcomes = asyncio.run(_send(job, _requests(job)))
    json.dump([(o.sent_s, o.answered_s, o.status, o.has_retry_after) for o in outcomes], sys.stdout)


if __name__ == "__main__":
    main()

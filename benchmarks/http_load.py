"""A load generator for the HTTP server, in its own process: ``python -m benchmarks.http_load``.

Reads one job as JSON from standard input and writes the outcomes as JSON to standard output. It
uses nothing but asyncio streams, to take as little as possible of the cores that it shares.
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

PATH = "/v1/rerank"


@dataclass(frozen=True, slots=True)
class LoadJob:
    """The requests to send.

    Attributes:
        host: Of the server.
        port: Of the server.
        bodies: A file with one JSON body per line.
        connections: Kept open, each with one request at a time; 0 opens as many as the rate needs.
        rate: Requests per second, sent whether or not earlier ones are answered; 0 sends the next
            request of a connection as soon as the last is answered.
    """

    host: str
    port: int
    bodies: str
    connections: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it was sent and answered, in seconds since the start of the job."""

    sent_s: float
    answered_s: float
    status: int
    has_retry_after: bool

    @property
    def taken_ms(self) -> float:
        """Milliseconds from sending to the response."""
        return (self.answered_s - self.sent_s) * 1e3


def run_load(job: LoadJob) -> list[Outcome]:
    """Runs a job in its own process.

    Raises:
        OSError: The server could not be reached, or closed a connection.
    """
    command = [sys.executable, "-m", "benchmarks.http_load"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or ["the load generator failed"])[-1])
    return [Outcome(*values) for values in json.loads(done.stdout)]


class Connection:
    """A connection that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, job: LoadJob) -> Connection:
        """Connects to the server of a job."""
        return cls(*await asyncio.open_connection(job.host, job.port))

    async def send(self, request: bytes) -> tuple[int, bool]:
        """Sends a request; returns the status and whether there is a Retry-After header."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(head.split(b" ", 2)[1]), b"\r\nretry-after:" in head

    def close(self) -> None:
        """Closes the connection."""
        self._writer.close()


async def send_all(job: LoadJob, requests: Sequence[bytes]) -> list[Outcome]:
    """Sends the requests of a job and waits for all responses."""
    connections = [await Connection.open(job) for _ in range(job.connections)]
    started = time.perf_counter()
    outcomes: list[Outcome] = []

    async def send(connection: Connection, request: bytes) -> None:
        sent_s = time.perf_counter() - started
        status, has_retry_after = await connection.send(request)
        outcomes.append(Outcome(sent_s, time.perf_counter() - started, status, has_retry_after))

    async def send_in_turn(number: int) -> None:
        for request in requests[number :: job.connections]:
            await send(connections[number], request)

    async def send_on_free_connection(request: bytes) -> None:
        connection = connections.pop() if connections else await Connection.open(job)
        await send(connection, request)
        connections.append(connection)

    if not job.rate:
        await asyncio.gather(*map(send_in_turn, range(job.connections)))
    else:
        tasks = []
        for number, request in enumerate(requests):
            await asyncio.sleep(max(0.0, number / job.rate - (time.perf_counter() - started)))
            tasks.append(asyncio.ensure_future(send_on_free_connection(request)))
        await asyncio.gather(*tasks)
    for connection in connections:
        connection.close()
    return outcomes


def _read_requests(job: LoadJob) -> list[bytes]:
    head = f"POST {PATH} HTTP/1.1\r\nHost: {job.host}\r\nContent-Type: application/json\r\n"
    bodies = Path(job.bodies).read_bytes().splitlines()
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


def main() -> None:
    """Runs the job from standard input."""
    job = LoadJob(**json.load(sys.stdin))
    outcomes = asyncio.run(send_all(job, _read_requests(job)))
    json.dump([(o.sent_s, o.answered_s, o.status, o.has_retry_after) for o in outcomes], sys.stdout)


if __name__ == "__main__":
    main()

"""Measures what hostile bodies cost a server: how long it answers nobody, and how much memory.

Starts ``gpurerank serve``, sends one body of each kind while ``/livez`` is asked over and over, and
prints a table. Linux only: memory is read from ``/proc``.
"""

from __future__ import annotations

import argparse
import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROBE_PAUSE_S = 0.02


def main() -> None:
    """Prints one line for each kind of body."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=float, default=32.0, help="Megabytes of each body.")
    options = parser.parse_args()
    with started_server() as (process_id, port):
        # The first request of a kind loads what later ones use.
        send(port, b'{"query": "a", "documents": ["b"]}')
        write_line("| body | bytes | answer | after, s | longest `/livez`, s | peak memory, MB |")
        write_line("|---|---|---|---|---|---|")
        write_line(f"| none | | | | | {memory_mb(process_id, 'VmRSS')} |")
        for name, body in bodies(int(options.mb * 1_000_000)):
            write_line(measure(process_id, port, name, body))


def bodies(size: int) -> Iterator[tuple[str, bytes]]:
    """Bodies of about ``size`` bytes, by what they are made of."""

    def around(part: bytes, count: int, field: bytes = b'"documents"') -> bytes:
        items = b",".join([part] * count)
        ignored = b'"documents":["b"],' if field != b'"documents"' else b""
        return b'{"query":"a",' + ignored + field + b":[" + items + b"]}"

    yield "numbers as documents", around(b"1", size // 2)
    yield "numbers, just under the bound of values", around(b"1", 499_000)
    yield "empty strings as documents", around(b'""', size // 3)
    yield "empty lists in an ignored field", around(b"[]", size // 3, b'"x"')
    yield "empty objects in an ignored field", around(b"{}", size // 3, b'"x"')
    yield "empty objects, just under the bound", around(b"{}", 99_000, b'"x"')
    names = b",".join(b'"%07d":1' % number for number in range(size // 12))
    yield "object of many names", b'{"query":"a","documents":["b"],"x":{' + names + b"}}"
    names = b",".join(b'"%07d":1' % number for number in range(249_000))
    yield (
        "many names, just under the bound",
        b'{"query":"a","documents":["b"],"x":{' + names + b"}}",
    )
    yield "lists inside each other", b'{"x":' + b"[" * size
    yield "one string", around(b'"' + b"a" * size + b'"', 1)
    yield (
        "strings of 10 MB in an ignored field",
        around(b'"' + b"a" * 10_000_000 + b'"', size // 10_500_000, b'"x"'),
    )
    emoji = "😀".encode() * 2_400_000
    yield "emoji, 9.6 MB a string", around(b'"' + emoji + b'"', size // 10_500_000, b'"x"')
    yield "quotes alone", b'"' * size
    yield "10,000 wrong documents", around(b'{"text":1}', 10_000)
    yield (
        "10,000 documents, a query that is no string",
        around(b'"' + b"word " * (size // 55_000) + b'"', 10_000).replace(
            b'"query":"a"', b'"query":1'
        ),
    )


def measure(process_id: int, port: int, name: str, body: bytes) -> str:
    """One line of the table."""
    # Resets the peak of resident memory.
    Path(f"/proc/{process_id}/clear_refs").write_text("5")
    with probed(port) as latencies_s:
        began = time.perf_counter()
        status = send(port, body)
        took_s = time.perf_counter() - began
        time.sleep(0.2)
    peak_mb, longest_s = memory_mb(process_id, "VmHWM"), max(latencies_s)
    return f"| {name} | {len(body):,} | {status} | {took_s:.2f} | {longest_s:.2f} | {peak_mb} |"


def write_line(line: str) -> None:
    """Writes a line of the table at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def send(port: int, body: bytes) -> str:
    """Posts a body to ``/v1/rerank``; the status, or that the connection was closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", "/v1/rerank", body, {"Content-Type": "application/json"})
        return str(connection.getresponse().status)
    except ConnectionError:
        # The server has answered and closed while the rest was still being sent.
        return "closed"
    finally:
        connection.close()


@contextmanager
def probed(port: int) -> Iterator[list[float]]:
    """Asks ``/livez`` over and over; gives the seconds of every answer."""
    latencies_s: list[float] = []
    stop = threading.Event()

    def probe() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while not stop.wait(PROBE_PAUSE_S):
            began = time.perf_counter()
            connection.request("GET", "/livez")
            connection.getresponse().read()
            latencies_s.append(time.perf_counter() - began)

    thread = threading.Thread(target=probe)
    thread.start()
    time.sleep(0.2)
    try:
        yield latencies_s
    finally:
        stop.set()
        thread.join()


def memory_mb(process_id: int, name: str) -> int:
    """A line of ``/proc/PID/status``, in MB."""
    status = Path(f"/proc/{process_id}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) // 1_000


@contextmanager
def started_server() -> Iterator[tuple[int, int]]:
    """A server with the embedded models; gives its process and port."""
    command = [sys.executable, "-m", "gpurerank.cli", "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = None
        while found is None:
            line = process.stderr.readline()
            if not line:
                raise RuntimeError("the server did not start")
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process.pid, int(found[1])
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()

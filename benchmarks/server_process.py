"""Runs ``gpurerank serve`` as users do: in its own process."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpurerank.errors import ModelError

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
_LISTENING = re.compile(r"^listening on http://([^:/\s]+):(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that is listening."""

    host: str
    port: int
    pid: int

    def resident_bytes(self) -> int:
        """Resident memory of the server; 0 without psutil."""
        try:
            import psutil
        except ImportError:
            return 0
        return int(psutil.Process(self.pid).memory_info().rss)


@contextmanager
def serving(arguments: Sequence[str]) -> Iterator[ServerProcess]:
    """Runs ``gpurerank serve`` with these arguments until the block ends.

    Raises:
        ModelError: The server does not start; the message is the last line of its log.
    """
    command = [sys.executable, "-m", "gpurerank.cli", "serve", "--port", "0", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stderr=stream, stdout=subprocess.DEVNULL)
        try:
            host, port = _wait_for_address(process, log)
            yield ServerProcess(host, port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        match = _LISTENING.search(log.read_text(encoding="utf-8", errors="replace"))
        if match is not None:
            return match[1], int(match[2])
        time.sleep(0.1)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise ModelError(f"the server did not start: {lines[-1] if lines else 'its log is empty'}")

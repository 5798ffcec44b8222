"""This package's own server as users run it: a process beside this one."""

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

_START_S = 300.0
_LISTENING = re.compile(r"^listening on http://([^:/\s]+):(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that listens."""

    host: str
    port: int
    pid: int

    def resident_bytes(self) -> int:
        """Its memory; 0 where psutil is not installed."""
        try:
            import psutil
        except ImportError:
            return 0
        return int(psutil.Process(self.pid).memory_info().rss)


@contextmanager
def serving(arguments: Sequence[str]) -> Iterator[ServerProcess]:
    """Runs ``gpurerank serve`` with these arguments until the block ends.

    Raises:
        ModelError: It does not come up.
    """
    command = [sys.executable, "-m", "gpurerank.cli", "serve", "--port", "0", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as written:
            process = subprocess.Popen(command, stderr=written, stdout=subprocess.DEVNULL)
        try:
            host, port = _address(process, log)
            yield ServerProcess(host, port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends and process.poll() is None:
        found = _LISTENING.search(log.read_text(encoding="utf-8", errors="replace"))
        if found is not None:
            return found[1], int(found[2])
        time.sleep(0.1)
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise ModelError(f"the server did not start: {said[-1] if said else 'it said nothing'}")

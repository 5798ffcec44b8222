"""The watchdog: declares a device lost when its batch never ends."""

from __future__ import annotations

import time

from gpurerank.engine.state import EngineState
from gpurerank.errors import DeviceError

# A batch takes about 0.05 s; one that takes this long never ends.
HANG_S = 300.0


class Watchdog:
    """Checks the heartbeat of lanes and feeder; every waiting caller calls ``check``.

    It needs no thread: a hung device matters only while somebody waits for it.

    Args:
        state: The engine's state, which fails when a device hangs.
        hang_s: Seconds after which a batch that has not ended counts as hung.
    """

    def __init__(self, state: EngineState, hang_s: float = HANG_S) -> None:
        self._state = state
        self._hang_s = hang_s
        # By thread: since when it has been busy, and when that was first found too long.
        self._suspects: dict[int, tuple[float, float]] = {}

    @property
    def check_interval_s(self) -> float:
        """Seconds after which a waiting caller checks again."""
        return self._hang_s / 4

    def check(self) -> None:
        """Fails the engine if a batch has not ended for ``hang_s``.

        Two checks with some time between them must agree: a process that was suspended sees a long
        wait at its first check, although the device had no time to work.
        """
        now = time.monotonic()
        for thread, since in enumerate(self._state.busy_since()):
            if since is None or now - since <= self._hang_s:
                continue
            suspected_since, first_check = self._suspects.setdefault(thread, (since, now))
            if suspected_since != since:
                self._suspects[thread] = (since, now)
            elif now - first_check >= self._hang_s / 8:
                message = f"the model has not finished a batch for {now - since:.0f} s"
                self._state.fail(DeviceError(f"{message}; start a new process"))

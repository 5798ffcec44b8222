"""Whether a process can still answer: the one rule of every probe, whoever asks."""

from __future__ import annotations

from gpurerank.server.metrics import engines
from gpurerank.server.refusal import Refusal
from gpurerank.server.service import Service

# A batch takes about 0.05 s; a worker that is silent this long hangs.
_HUNG_S = 60.0


def check_devices(service: Service) -> None:
    """Passes while every device answers.

    Raises:
        Refusal: One is lost.
    """
    if service.lost:
        raise Refusal(503, "a device is lost; only a new process helps", "lost")


def check_alive(service: Service) -> dict[str, float]:
    """Passes while every busy device has ended a batch lately.

    Returns:
        Seconds since each model's devices last did, by its name and kind; 0 where they are idle.

    Raises:
        Refusal: A device is lost, or hangs.
    """
    check_devices(service)
    ages = {
        f"{name} ({kind})": round(stats.heartbeat_age_s, 3)
        for name, kind, stats in engines(service.models)
    }
    worst = max(ages.values(), default=0.0)
    if worst > _HUNG_S:
        raise Refusal(503, f"a model has not ended a batch for {worst:.0f} s", "hung")
    return ages

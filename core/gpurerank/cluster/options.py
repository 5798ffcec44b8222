"""What an application on Ray Serve is asked to be."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpurerank.cluster.connection import Replicas
from gpurerank.errors import InputError
from gpurerank.server.options import ServerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationOptions:
    """Everything an application is told.

    Attributes:
        server: As for the plain server; each replica holds all of its models. Its address is told
            to Serve, where this process starts Serve.
        replicas: How many at first and at least, and what each takes.
        max_replicas: How many at most; None keeps their number.
        target_ongoing_requests: Requests of a replica beyond which there should be another.
        max_ongoing_requests: Requests that a replica holds; so many that its own queue, which
            counts tokens, is full before.
        max_queued_requests: Requests that wait in a proxy while every replica is full or none is
            there; more get 429.
    """

    server: ServerOptions = field(default_factory=ServerOptions)
    replicas: Replicas = field(default_factory=Replicas)
    max_replicas: int | None = None
    target_ongoing_requests: float = 16.0
    max_ongoing_requests: int = 256
    max_queued_requests: int = 256

    def check(self) -> None:
        """Checks what can be checked without a cluster.

        Raises:
            InputError: An option is wrong.
        """
        self.server.check()
        self.replicas.check()
        if self.max_replicas is not None and self.max_replicas < self.replicas.count:
            raise InputError(
                f"max_replicas is {self.max_replicas}, below the {self.replicas.count} replicas"
            )
        for name in ("target_ongoing_requests", "max_ongoing_requests", "max_queued_requests"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be over 0")
        scales = self.max_replicas is not None
        if scales and self.target_ongoing_requests > self.max_ongoing_requests:
            raise InputError(
                f"target_ongoing_requests is {self.target_ongoing_requests:g}, over the"
                f" {self.max_ongoing_requests} that a replica holds: no other would ever start"
            )

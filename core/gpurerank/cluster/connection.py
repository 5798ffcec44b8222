"""Joining a Ray cluster, and asking whether it has what is wanted of it."""

from __future__ import annotations

import logging
import os
import re
import socket
from dataclasses import dataclass

from gpurerank.errors import InputError, MissingExtraError

try:
    import ray
except ImportError as error:
    raise MissingExtraError("Ray is not installed: pip install 'gpurerank[ray]'") from error

_NAMESPACE = "gpurerank"
_REACHED_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many processes hold a model, and what each takes of the cluster.

    Attributes:
        count: Processes; each holds one copy of the model.
        num_cpus: Cores that one is counted with, and threads that it computes with on a CPU, at
            least one; by default under 1, which leaves room for other stages.
        num_gpus: GPUs of one; 0.5 puts two on one GPU. None is 1 where the cluster has a GPU,
            otherwise 0.
    """

    count: int = 1
    num_cpus: float = 0.5
    num_gpus: float | None = None

    def check(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: One is out of range.
        """
        if self.count < 1:
            raise InputError(f"replicas is {self.count}; it must be at least 1")
        if self.num_cpus < 0 or (self.num_gpus or 0) < 0:
            raise InputError(f"num_cpus {self.num_cpus} or num_gpus {self.num_gpus} is below 0")

    def fitted(self) -> Replicas:
        """The same with GPUs decided, on the cluster that this process has joined.

        Raises:
            InputError: The cluster has less than that, and would wait for more without a word.
        """
        self.check()
        have = ray.cluster_resources()
        gpus = self.num_gpus if self.num_gpus is not None else float("GPU" in have)
        for kind, each in (("GPU", gpus), ("CPU", self.num_cpus)):
            wanted, found = each * self.count, have.get(kind, 0.0)
            if wanted > found:
                raise InputError(
                    f"replicas × num_{kind.lower()}s, {self.count} × {each:g}, want {wanted:g}, and"
                    f" the cluster has {found:g}: lower them, or add nodes"
                )
        return Replicas(count=self.count, num_cpus=self.num_cpus, num_gpus=gpus)


def join(address: str | None = None) -> None:
    """Joins a cluster once; usage statistics stay off where this process starts one.

    Args:
        address: Such as "ray://head:10001" or "auto". None is the cluster that RAY_ADDRESS names or
            that runs on this machine, or else a new one of this machine alone.

    Raises:
        InputError: There is no cluster at that address.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        _check_reachable(address)
    try:
        ray.init(
            address=address,
            namespace=_NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"no Ray cluster at {address or 'this machine'}: {reason}") from error


def start() -> None:
    """Starts a cluster of this machine alone, which ends with this process or ``ray.shutdown``."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        namespace=_NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _check_reachable(address: str) -> None:
    # Ray itself tries for minutes.
    found = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_REACHED_S).close()
    except OSError as error:
        raise InputError(f"no Ray cluster at {address}: {error.strerror or error}") from error

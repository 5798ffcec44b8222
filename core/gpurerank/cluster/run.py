"""Serving on a cluster from the command line: from joining it to the last answer."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NoReturn

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import HTTPOptions
from ray.serve.context import _get_global_client

from gpurerank.cluster import front
from gpurerank.cluster.application import build
from gpurerank.cluster.connection import join, start
from gpurerank.cluster.options import ApplicationOptions
from gpurerank.errors import InputError, ModelError
from gpurerank.server.process import ProcessEnd
from gpurerank.server.run import bind

_NAME = "gpurerank"
_FRONT = {front.VARIABLE: front.IMPORT_PATH}
# How often a proxy that starts is looked at.
_LOOK_S = 0.2


def run(
    options: ApplicationOptions,
    address: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> NoReturn:
    """Serves on a cluster until SIGTERM or SIGINT, answers what was accepted, ends this process.

    Args:
        options: What the application is told.
        address: The cluster, as for ``join``; None starts one of this machine alone.
        report: Called with a line for each step: before models are loaded, and when requests
            are accepted.

    Raises:
        InputError: An option is wrong, there is no such cluster or no room on it, or Serve runs
            on it already.
        ModelError: The replicas do not start.
    """
    options.check()
    host, port = _free_address(options)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    own_cluster = address is None
    if address is None:
        # A process of this cluster has this one's variables; one of another is told them.
        os.environ.update(_FRONT)
        start()
    else:
        join(address)
    # The processes of an own cluster end with this one. On another's, Serve must be shut down.
    end = ProcessEnd(options.server.limits.drain_s if own_cluster else math.inf)
    exit_requested = threading.Event()
    try:
        _check_unserved()
        fitted = replace(options, replicas=options.replicas.fitted())
        # On a cluster, because Ray takes SIGTERM for a crash.
        with end.on_signals(exit_requested.set), _serving(options, host, port, own_cluster):
            report("loading the models")
            _deploy(fitted, exit_requested)
            if not exit_requested.is_set():
                report(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
            exit_requested.wait()
            # Before Serve itself, whose end would take the proxies from those who wait.
            serve.delete(_NAME)
    finally:
        ray.shutdown()
    end.exit()


def _check_unserved() -> None:
    if _get_global_client(raise_if_no_controller_running=False) is not None:
        raise InputError(
            "Ray Serve runs on that cluster already, with an address of its own: add"
            " gpurerank.cluster.application:app to its config file and 'serve deploy' that"
        )


@contextmanager
def _serving(
    options: ApplicationOptions, host: str, port: int, own_cluster: bool
) -> Iterator[None]:
    limits = options.server.limits
    http = HTTPOptions(host=host, port=port, request_timeout_s=limits.body_s + limits.answer_s)
    controller: dict[str, Any] | None = (
        None if own_cluster else {"runtime_env": {"env_vars": _FRONT}}
    )
    try:
        # A proxy that takes its time at first is started again.
        with suppress(RayActorError):
            serve.start(http_options=http, controller_options=controller)
        yield
    finally:
        # An own cluster ends as a whole.
        if not own_cluster:
            serve.shutdown()


def _deploy(options: ApplicationOptions, ended: threading.Event) -> None:
    try:
        serve.run(build(options), name=_NAME)
    except RuntimeError as error:
        raise ModelError(f"the replicas do not start: {_reason(str(error))}") from error
    while "HEALTHY" not in serve.status().proxies.values() and not ended.wait(_LOOK_S):
        pass


def _reason(told: str) -> str:
    # Serve tells a traceback, whose last line is the error of a replica.
    applications = serve.status().applications
    lines = "\n".join(
        deployment.message
        for application in applications.values()
        for deployment in application.deployments.values()
    )
    return ((lines or told).strip().splitlines() or [""])[-1]


def _free_address(options: ApplicationOptions) -> tuple[str, int]:
    # So that a wrong port fails at once, and 0 becomes one that is free.
    with bind(options.server) as bound:
        host, port = bound.getsockname()[:2]
    return str(host), int(port)

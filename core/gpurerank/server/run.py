"""Running the server: what it listens on, and how it shuts down."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

import uvicorn

from gpurerank.errors import DeviceError, InputError
from gpurerank.model_names import check_path
from gpurerank.server import logs
from gpurerank.server.acceptor import Acceptor
from gpurerank.server.app import build_app
from gpurerank.server.connections import Connections
from gpurerank.server.models import ServedModels
from gpurerank.server.options import ServerOptions
from gpurerank.server.process import ProcessEnd
from gpurerank.server.protocol import LimitedProtocol, protocol_with
from gpurerank.server.service import Service

# How often a server that drains looks whether it is done.
_LOOK_S = 0.05
# The last part of the drain limit is for writing answers: so long at most, and such a share.
_WRITING_S = 2.0
_WRITING_SHARE = 0.25


class Server(uvicorn.Server):
    """uvicorn with a limit for connections and a drain that ends in time.

    Args:
        config: As uvicorn has it.
        service: What it serves.
        connections: Its open connections, which its protocol counts.
        on_listening: Called once connections are accepted.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        connections: Connections,
        on_listening: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._connections = connections
        self._on_listening = on_listening
        self._exit_requested_at: float | None = None

    def request_exit(self) -> None:
        """Asks the server to shut down; safe in a signal handler and between threads."""
        if self._exit_requested_at is None:
            self._exit_requested_at = time.monotonic()
        self.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is asked to shut down.

        Raises:
            DeviceError: A device is lost: whoever watches the process starts a new one.
        """
        await super().serve(sockets)
        if self._service.lost:
            raise DeviceError("a device is lost; only a new process helps")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens on the sockets."""
        acceptors = [
            Acceptor(each, self.config.backlog, self._connections, self._make_protocol)
            for each in sockets or []
        ]
        await super().startup(sockets=[])
        self.servers = acceptors  # type: ignore[assignment]
        self._on_listening()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to shut down."""
        return await super().on_tick(counter) or self._service.lost

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers what was accepted, and is done within the drain limit.

        Until all is answered the server listens, so that readiness probes and new requests are
        told that it shuts down.
        """
        service, drain_s = self._service, self._service.limits.drain_s
        self.request_exit()
        assert self._exit_requested_at is not None
        end = self._exit_requested_at + drain_s
        answer_until = end - min(_WRITING_S, drain_s * _WRITING_SHARE)
        service.draining = True
        logs.LOGGER.info("draining", extra={"fields": {"in_flight": service.in_flight}})
        await self._wait_for_answers(answer_until)
        for server in self.servers:
            server.close()
        # A connection that was accepted a moment ago has sent a request that is not read yet.
        await asyncio.sleep(_LOOK_S)
        await self._wait_for_answers(answer_until)
        service.abandon()
        self.config.timeout_graceful_shutdown = max(0.0, end - time.monotonic())  # type: ignore[assignment]
        await super().shutdown(sockets)

    async def _wait_for_answers(self, until: float) -> None:
        while self._service.in_flight and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

    def _make_protocol(self) -> LimitedProtocol:
        protocol_class: type[LimitedProtocol] = self.config.http_protocol_class  # type: ignore[assignment]
        return protocol_class(self.config, self.server_state, self.lifespan.state)

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Captures none: a process that serves handles its signals until it has ended."""
        return nullcontext()


def serve(options: ServerOptions, report: Callable[[str], None] = lambda _: None) -> NoReturn:
    """Loads the models, serves until SIGTERM or SIGINT, and ends this process.

    Args:
        options: Models, address and limits.
        report: Called with a line for each step: before models are loaded, and when requests
            are accepted.

    Raises:
        InputError: An option is wrong, or the address cannot be listened on.
        GPURerankError: A model cannot be loaded, or a device was lost.
    """
    options.check()
    for named in (*options.rerankers, *options.embedders):
        check_path(named.model)
    bound = bind(options)
    try:
        report("loading the models")
        models = ServedModels(options)
    except BaseException:
        bound.close()
        raise
    # Models and libraries are never garbage. Looking for garbage among their million objects, as
    # parsing a large body makes Python do, would stop every thread for a tenth of a second.
    gc.collect()
    gc.freeze()
    logs.configure()
    end = ProcessEnd(options.limits.drain_s)
    server = server_of(Service(options, models), lambda: _report_address(bound, options, report))
    with end.on_signals(server.request_exit):
        try:
            asyncio.run(server.serve(sockets=[bound]))
        except DeviceError:
            end.begin(status=1)
            raise
        # The models are not closed: the process's memory is given back at once, theirs included.
        end.exit()


def _report_address(
    bound: socket.socket, options: ServerOptions, report: Callable[[str], None]
) -> None:
    host, port = bound.getsockname()[:2]
    if options.address_file is not None:
        _write_address(options.address_file, host, port)
    report(f"listening on {_url(host, port)}")


def _write_address(path: Path, host: str, port: int) -> None:
    """Writes a URL that this machine reaches, which an address for all interfaces is not."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        path.write_text(f"{_url(reached, port)}\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"address_file {path} cannot be written: {error.strerror or error}"
        ) from error


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_of(service: Service, on_listening: Callable[[], None] = lambda: None) -> Server:
    """A uvicorn server with this package's limits."""
    limits = service.limits
    connections = Connections(limits.connections())
    service.metrics.watch(connections)
    config = uvicorn.Config(
        build_app(service),
        http=protocol_with(limits.header_s, limits.header_bytes, connections),
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        # No proxy is trusted to say who asks; nothing here depends on it.
        proxy_headers=False,
        # Or a request on a connection that is kept takes over the deadline of the one before it.
        reset_contextvars=True,
    )
    return Server(config, service, connections, on_listening)


def bind(options: ServerOptions) -> socket.socket:
    """The socket, bound before the models are loaded, so that a wrong port fails at once.

    Raises:
        InputError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio switches Nagle's wait off only for sockets that name their protocol.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((options.host.strip("[]"), options.port))
    except OSError as error:
        bound.close()
        raise InputError(
            f"{options.host}:{options.port} cannot be listened on: {error.strerror or error};"
            " choose another --port"
        ) from error
    return bound

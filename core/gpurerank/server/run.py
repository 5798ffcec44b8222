"""Running the server: what is listened on, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from gpurerank.errors import DeviceError, InputError
from gpurerank.server import logs
from gpurerank.server.app import build_app
from gpurerank.server.models import ServedModels
from gpurerank.server.options import ServerOptions
from gpurerank.server.protocol import protocol_with
from gpurerank.server.service import Service

# How often a server that drains looks whether it is done.
_LOOK_S = 0.05
# What answers get to be written, once all are there.
_WRITING_S = 2


class Server(uvicorn.Server):
    """uvicorn, that tells the service when it is asked to end, and ends with a lost device."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is asked to end.

        Raises:
            DeviceError: A device is lost: whoever watches the process starts a new one.
        """
        await super().serve(sockets)
        if self._service.lost:
            raise DeviceError("a device is lost; only a new process helps")

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to end."""
        return await super().on_tick(counter) or self._service.lost

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers what was accepted within the drain limit, then ends.

        Until then it listens, so that readiness and new requests hear of it.
        """
        service = self._service
        service.draining = True
        logging.getLogger("gpurerank.server").info("draining")
        last = time.monotonic() + service.limits.drain_s
        await self._answer_until(last)
        for server in self.servers:
            server.close()
        # Who was let in a moment ago has asked, but has not been read yet.
        await asyncio.sleep(_LOOK_S)
        await self._answer_until(last)
        service.abandon()
        await super().shutdown(sockets)

    async def _answer_until(self, last: float) -> None:
        # uvicorn sets force_exit in a signal handler, at the second Ctrl-C: nothing to wait on.
        while self._service.in_flight and time.monotonic() < last and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends; SIGTERM is what was asked for, and no failure to be raised again afterwards."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def serve(options: ServerOptions, listening: Callable[[str], None] = lambda _: None) -> None:
    """Loads the models and serves until SIGTERM or SIGINT.

    Args:
        options: What the server is told.
        listening: Called once with the address, when requests are taken.

    Raises:
        InputError: An option is wrong, or the address cannot be listened on.
        GPURerankError: A model cannot be loaded, or a device was lost.
    """
    options.check()
    bound = bind(options)
    try:
        models = ServedModels(options)
    except BaseException:
        bound.close()
        raise
    try:
        service = Service(options, models)
        logs.configure()
        host, port = bound.getsockname()[:2]
        listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        asyncio.run(server_of(service).serve(sockets=[bound]))
    finally:
        models.close()


def server_of(service: Service) -> Server:
    """A uvicorn server with this package's limits."""
    limits = service.limits
    config = uvicorn.Config(
        build_app(service),
        http=protocol_with(limits.header_s, limits.header_bytes),
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_WRITING_S,
        # No proxy is trusted to say who asks; nothing here depends on it.
        proxy_headers=False,
        # Or a request on a connection that is kept takes over the deadline of the one before it.
        reset_contextvars=True,
    )
    return Server(config, service)


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

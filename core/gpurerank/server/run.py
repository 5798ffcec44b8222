"""Running the server: what is listened on, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import uvicorn

from gpurerank.errors import InputError
from gpurerank.server import logs
from gpurerank.server.app import build_app
from gpurerank.server.models import ServedModels
from gpurerank.server.options import ServerOptions
from gpurerank.server.protocol import protocol_with
from gpurerank.server.service import Service


class Server(uvicorn.Server):
    """uvicorn, that tells the service when it is asked to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more work, answers what was accepted within the drain limit, ends."""
        self._service.draining = True
        logging.getLogger("gpurerank.server").info("draining")
        await super().shutdown(sockets)


def serve(options: ServerOptions, listening: Callable[[str], None] = lambda _: None) -> None:
    """Loads the models and serves until SIGTERM or SIGINT.

    Args:
        options: What the server is told.
        listening: Called once with the address, when requests are taken.

    Raises:
        InputError: An option is wrong, or the address cannot be listened on.
        GPURerankError: A model cannot be loaded.
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
        timeout_graceful_shutdown=max(1, round(limits.drain_s)),
        # No proxy is trusted to say who asks; nothing here depends on it.
        proxy_headers=False,
    )
    return Server(config, service)


def bind(options: ServerOptions) -> socket.socket:
    """The socket, bound before the models are loaded, so that a wrong port fails at once.

    Raises:
        InputError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
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

"""One replica: the models, and the HTTP application of the plain server before them."""

from __future__ import annotations

from dataclasses import replace

from fastapi import FastAPI
from ray.serve.context import _get_global_client

from gpurerank.cluster.body import TravellingBody
from gpurerank.cluster.export import Exported
from gpurerank.errors import ModelError
from gpurerank.server import logs
from gpurerank.server.app import build_app
from gpurerank.server.liveness import check_alive
from gpurerank.server.models import ServedModels
from gpurerank.server.options import ServerOptions
from gpurerank.server.refusal import Refusal
from gpurerank.server.service import Service


class RerankReplica:
    """Holds the models; Ray Serve asks for its application once it is made.

    Args:
        options: What the server is told; its address is not read.
        host: Where Serve listens; None asks it.

    Raises:
        InputError: An option is wrong, or Serve listens where everybody would get in.
        GPURerankError: A model cannot be loaded.
    """

    def __init__(self, options: ServerOptions, host: str | None = None) -> None:
        options = replace(options, host=_listening_host() if host is None else host)
        options.check()
        logs.configure()
        self._models = ServedModels(options)
        self._service = Service(options, self._models)
        self._exported = Exported(self._service.metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve's name for what gives a deployment's application; called once."""
        app = build_app(self._service, numbered=True)
        app.add_middleware(TravellingBody)
        return app

    def check_health(self) -> None:
        """Ray Serve asks this now and then, and replaces a replica that fails: the rule of /livez.

        Raises:
            ModelError: A device is lost, or hangs.
        """
        self._exported.update()
        try:
            check_alive(self._service)
        except Refusal as refusal:
            raise ModelError(refusal.message) from None

    def __del__(self) -> None:
        """Ray Serve calls this when what was accepted is answered, or its time is over."""
        if hasattr(self, "_service"):
            self._service.draining = True
            self._models.close()


def _listening_host() -> str:
    # Serve has no public name for it; "" is no loopback address, and asks for a key.
    client = _get_global_client()
    return "" if client is None else client.http_config.host or ""

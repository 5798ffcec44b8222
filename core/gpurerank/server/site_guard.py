"""Which web sites may talk to the server through somebody's browser.

A page of any site can send requests to a server on the visitor's own machine or network. Browsers
name the page's origin in such requests, and hide the answer from the page unless the server allows
the origin (CORS). With DNS rebinding a site's own name leads to the server, whose answers then
count as the site's own; the Host header still has that name. Programs other than browsers send
neither ``Origin`` nor ``Sec-Fetch-Site`` and are not affected.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gpurerank.server.metrics import Metrics
from gpurerank.server.options import ServerOptions
from gpurerank.server.origins import ANY, host_of, is_loopback, normalize_host, normalize_origin
from gpurerank.server.refusal import Refusal


def add_site_guard(app: FastAPI, options: ServerOptions, metrics: Metrics) -> None:
    """Refuses sites that are not allowed, and answers the CORS requests of those that are."""
    if options.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=tuple(map(normalize_origin, options.allowed_origins)),
            allow_methods=("GET", "HEAD", "POST"),
            # OpenAI's client for browsers sends a dozen headers of its own.
            allow_headers=(ANY,),
            allow_private_network=True,
            expose_headers=("Retry-After", "X-Request-Id"),
        )
    # Added last, so that it runs first.
    app.add_middleware(SiteGuard, options=options, metrics=metrics)


class SiteGuard:
    """ASGI middleware that refuses wrong hosts and requests of other sites.

    Args:
        app: The application.
        options: The address that is listened on, and what is allowed by name.
        metrics: Counts refusals.
    """

    def __init__(self, app: ASGIApp, options: ServerOptions, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._origins = frozenset(map(normalize_origin, options.allowed_origins))
        self._hosts = frozenset(map(normalize_host, options.allowed_hosts))
        self._checks_host = bool(self._hosts) or is_loopback(options.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            refusal = self._refuse_host(headers) or self._refuse_site(headers, scope["method"])
            if refusal is not None:
                self._metrics.rejected.labels(refusal.code).inc()
                await refusal.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refuse_host(self, headers: Headers) -> Refusal | None:
        host = host_of(headers.get("host", ""))
        # Every browser sends the header; a program that does not is no danger.
        if not host or not self._checks_host or ANY in self._hosts:
            return None
        if is_loopback(host) or host in self._hosts:
            return None
        message = (
            f"the Host header names {host[:100]!r}, which this server does not answer to; use"
            " localhost or 127.0.0.1, or start the server with --allow-host"
        )
        return Refusal(403, message, "wrong_host")

    def _refuse_site(self, headers: Headers, method: str) -> Refusal | None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and (ANY in self._origins or origin.lower() in self._origins):
            return None
        if site is not None:
            # "none": typed into the address bar. A link to the playground is a navigation, whose
            # answer the linking page cannot read.
            opens_page = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
            allowed = site in ("same-origin", "none") or opens_page
        else:
            allowed = origin is None or urlsplit(origin).netloc == headers.get("host")
        if allowed:
            return None
        message = (
            f"the request comes from a page of another site, {(origin or site or '')[:100]!r};"
            " start the server with --allow-origin to allow it"
        )
        return Refusal(403, message, "cross_site")

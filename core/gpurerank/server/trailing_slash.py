"""Paths that end in a slash: the same as without it."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class TrailingSlash:
    """ASGI middleware that serves ``/v1/rerank/`` as ``/v1/rerank``.

    What is read in a browser is redirected, since links of a page are relative to its address. The
    redirect is relative too: the Host header, from which Starlette would make an absolute one, is
    the client's.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on without the slash, or redirects it."""
        if scope["type"] == "http" and len(scope["path"]) > 1 and scope["path"].endswith("/"):
            if scope["method"] in ("GET", "HEAD"):
                headers = {"Location": _sibling(scope)}
                await Response(status_code=307, headers=headers)(scope, receive, send)
                return
            # In place: the route that Starlette adds is read from this scope.
            scope["path"] = scope["path"].rstrip("/") or "/"
        await self._app(scope, receive, send)


def _sibling(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8")
    name = raw.rstrip(b"/").rpartition(b"/")[2].decode("latin-1")
    query: str = scope["query_string"].decode("latin-1")
    # From "/a/b/" the reference "../b" leads to "/a/b", whatever proxies have cut off before.
    up = "../" * (len(raw) - len(raw.rstrip(b"/")))
    return f"{up}{name}{'?' if query else ''}{query}"

"""A request's body that travels with it: a replica that has it need not ask the proxy."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Of an ASGI scope; no client can set it, unlike a header.
KEY = "gpurerank.body"


class TravellingBody:
    """Reads the body from where the front put it, and from the proxy where there is no front.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        body = scope.pop(KEY, None)
        if body is None:
            await self._app(scope, receive, send)
            return
        given = False

        async def read() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            # The same once more, or nothing where another replica took it and died.
            while (message := await receive())["type"] == "http.request":
                pass
            return message

        await self._app(scope, read, send)

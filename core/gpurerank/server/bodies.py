"""Bodies of requests: read within limits of time and memory, parsed off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from gpurerank.server.body_scan import BodyScan, Bounds
from gpurerank.server.json_body import parse_object, validate
from gpurerank.server.options import Limits
from gpurerank.server.refusal import Refusal

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")
# Parsing and checking as much takes under a millisecond, which a thread's hand-over costs too.
_INLINE_BYTES = 32 << 10
# The scan of as much takes at most about 3 ms, whatever it holds.
_SCANNED_BYTES = 64 << 10
# Bytes of each body that are let in whatever the others hold: requests of a usual size are never
# refused because of large ones, and the number of connections bounds their sum.
_FREE_BYTES = 64 << 10
# Weaviate's module and LiteLLM for Voyage send no Content-Type. A page in a browser cannot send
# these names without asking the server first (a CORS preflight), so they let no other site in.
_NO_TYPE_CLIENTS = ("Go-http-client/", "litellm/")


class BodyReader:
    """Reads the bodies of all requests of a server. Belongs to one event loop.

    Args:
        limits: Sizes and times.
        bounds: What one body may hold.

    Attributes:
        memory: The bytes of all bodies that are being read or parsed.
    """

    def __init__(self, limits: Limits, bounds: Bounds | None = None) -> None:
        self.memory = BodyMemory(4 * limits.body_bytes)
        self._limits = limits
        self._bounds = bounds or Bounds()
        # One thread: memory then holds the objects of one large body at a time.
        self._thread = ThreadPoolExecutor(1, "gpurerank-bodies")

    async def read_object(self, request: Request) -> dict[str, Any]:
        """Reads the JSON object that a body holds.

        Raises:
            Refusal: The body is not declared as JSON, too large, too slow, holds too many values,
                or is not a strict JSON object.
        """
        _check_headers(request, self._limits.body_bytes)
        with self.memory.reserved() as reserve:
            try:
                body = await asyncio.wait_for(self._receive(request, reserve), self._limits.body_s)
            except asyncio.TimeoutError:
                message = f"the body did not arrive within {self._limits.body_s:g} s"
                raise Refusal(408, message, "slow_body") from None
            except ClientDisconnect:
                raise Refusal(400, "the client left before its body arrived", "left") from None
            request.state.body_bytes = len(body)
            return await self._run(len(body), lambda: parse_object(body))

    async def check(self, request: Request, schema: type[Body], values: dict[str, Any]) -> Body:
        """Checks the object that ``read_object`` gave against a schema.

        Raises:
            Refusal: A list is too long, or a field is missing, of another type, or out of range.
        """
        return await self._run(
            request.state.body_bytes, lambda: validate(schema, values, self._limits.passages)
        )

    async def _receive(self, request: Request, reserve: Callable[[int], None]) -> bytearray:
        body = bytearray()
        scan = BodyScan(self._bounds)
        async for chunk in request.stream():
            if len(body) + len(chunk) > self._limits.body_bytes:
                raise _too_large(self._limits.body_bytes)
            reserve(len(chunk))
            for start in range(0, len(chunk), _SCANNED_BYTES):
                if start:
                    # A proxy may hand over the whole body at once.
                    await asyncio.sleep(0)
                scan.feed(chunk[start : start + _SCANNED_BYTES])
            body += chunk
        return body

    async def _run(self, size: int, work: Callable[[], Result]) -> Result:
        if size <= _INLINE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class BodyMemory:
    """Bounds the bytes of all bodies that are being read or parsed.

    Args:
        max_bytes: Of all bodies together, beyond the first 64 KiB of each.

    Attributes:
        held_bytes: What is held now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes

    @contextmanager
    def reserved(self) -> Iterator[Callable[[int], None]]:
        """Gives what reserves memory for one body; all of it is free again afterwards."""
        size = 0

        def reserve(count: int) -> None:
            nonlocal size
            if size + count > _FREE_BYTES and self.held_bytes + count > self._max_bytes:
                raise Refusal(
                    429,
                    f"bodies of other requests hold {self.held_bytes:,} bytes of the"
                    f" {self._max_bytes:,} that may be read at the same time; try again",
                    "overloaded",
                    retry_after_s=1,
                    closes_connection=True,
                )
            size += count
            self.held_bytes += count

        try:
            yield reserve
        finally:
            self.held_bytes -= size


def _check_headers(request: Request, max_bytes: int) -> None:
    # A missing type counts as wrong: pages of other sites may send such a body without asking.
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if not kind and request.headers.get("user-agent", "").startswith(_NO_TYPE_CLIENTS):
        kind = "application/json"
    if kind not in ("application/json", "text/json") and not kind.endswith("+json"):
        declared = f"is declared as {kind[:100]!r}" if kind else "has no Content-Type"
        message = f"the body {declared}; send the header Content-Type: application/json"
        raise Refusal(415, message, "not_json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed; send it uncompressed", "not_json")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, f"the body is over {max_bytes:,} bytes; send fewer passages", "too_large")

"""Sends requests to one server, retries them where that helps, and bounds their time and size."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import anyio
import httpx

from gpurerank.calls import current_call
from gpurerank.errors import RemoteError
from gpurerank.remote.event_loop import close_at_exit, run_later
from gpurerank.remote.http_errors import http_error
from gpurerank.remote.retry import Clock, Retry, retry_after_s

# 256 vectors of 4,096 numbers, written out, are 25 MB.
MAX_RESPONSE_BYTES = 64 << 20
# Bytes of an error response that are read for its message.
_MAX_ERROR_BYTES = 64 << 10
_CONNECT_S = 10.0
_KEEP_ALIVE_S = 30.0
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    Attributes:
        url: Its address.
        body: Sent as JSON by POST; None for a GET.
        hidden: Texts in the body, which no error message may quote.
    """

    url: str
    body: dict[str, Any] | None = None
    hidden: Sequence[str] = ()

    def content(self) -> bytes | None:
        """The body as UTF-8, in which each lone surrogate becomes U+FFFD, as in local models."""
        if self.body is None:
            return None
        text = json.dumps(self.body, ensure_ascii=False, separators=(",", ":"))
        return _SURROGATE.sub("\ufffd", text).encode()


class HttpClient:
    """The connections to one server; used only on the loop of ``event_loop.py``.

    Args:
        api_key: Sent as a bearer token, and only to this server: redirects are not followed.
        retry: When a request is sent again.
        request_timeout_s: From the first byte sent to the last byte received of one request.
        concurrency: Requests in flight at once.
        transport: What carries the requests; None for connections over the network.
        clock: Time and chance of the retries.
    """

    def __init__(
        self,
        *,
        api_key: str | None,
        retry: Retry,
        request_timeout_s: float,
        concurrency: int,
        transport: httpx.AsyncBaseTransport | None,
        clock: Clock,
    ) -> None:
        self._key = api_key
        self._retry = retry
        self._timeout_s = request_timeout_s
        self._concurrency = concurrency
        self._transport = transport
        self._clock = clock
        self._ssl_context = _ssl_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient
        self._slots: asyncio.Semaphore

    async def send(self, request: HttpRequest) -> Any:
        """Sends a request and returns the JSON of its response.

        Raises:
            OverloadedError: The server is busy, and was at each attempt.
            RemoteError: It cannot be reached, answers with an error, or not with JSON.
        """
        self._connect()
        attempt = 1
        # Held during delays too, so that a busy server gets no requests of waiting callers.
        async with self._slots:
            while True:
                try:
                    return await self._attempt(request)
                except RemoteError as error:
                    delay_s = self._retry.delay_s(error, attempt, self._clock.jitter())
                    remaining_s = current_call().remaining_s()
                    if delay_s is None or (remaining_s is not None and delay_s >= remaining_s):
                        raise
                await self._clock.sleep(delay_s)
                attempt += 1

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._loop is asyncio.get_running_loop():
            self._loop = None
            await self._client.aclose()

    @property
    def is_connected(self) -> bool:
        """Whether there may be connections."""
        return self._loop is not None

    def close_later(self) -> None:
        """Closes the connections soon, from any thread."""
        if self.is_connected:
            run_later(self.aclose)

    def _connect(self) -> None:
        """Creates the client of this loop; in a forked process the parent's is left alone."""
        if self._loop is asyncio.get_running_loop():
            return
        if self._loop is not None:
            # Kept: dropping it would close connections that the parent uses.
            self._parent_client = self._client
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            verify=self._ssl_context,
            transport=self._transport,
            # Each request is bounded as a whole, and their number by the semaphore.
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=self._concurrency,
                keepalive_expiry=_KEEP_ALIVE_S,
            ),
            follow_redirects=False,
        )
        self._slots = asyncio.Semaphore(self._concurrency)
        self._loop = asyncio.get_running_loop()
        close_at_exit(self)

    async def _attempt(self, request: HttpRequest) -> Any:
        url = request.url
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._exchange(request)
        except TimeoutError:
            raise RemoteError(
                f"{url} did not answer within {self._timeout_s:g} s; raise request_timeout_s, or"
                " lower texts_per_request"
            ) from None
        except httpx.TransportError as error:
            raise _connection_error(url, error) from None

    async def _exchange(self, request: HttpRequest) -> Any:
        url, content = request.url, request.content()
        headers = {} if content is None else {"Content-Type": "application/json"}
        method = "GET" if content is None else "POST"
        async with self._client.stream(method, url, content=content, headers=headers) as response:
            if response.is_success:
                return _parse_json(url, response.status_code, await _read(url, response))
            if response.has_redirect_location:
                raise RemoteError(_redirect_message(url, response), status=response.status_code)
            body = await _read_start(response)
        hidden = [*request.hidden, self._key] if self._key else request.hidden
        wait_s = retry_after_s(response.headers.get("Retry-After"), self._clock.now())
        raise http_error(url, response.status_code, body, retry_after_s=wait_s, hidden=hidden)


@cache
def _ssl_context() -> ssl.SSLContext:
    """The trusted certificates; loading them takes 60 ms, so once in a process."""
    return httpx.create_ssl_context()


async def _read(url: str, response: httpx.Response) -> bytes:
    if not _is_uncompressed(response):
        # The size after decompression could not be bounded.
        encoding = response.headers["Content-Encoding"][:40]
        raise RemoteError(
            f"{url} answered in the encoding {encoding!r}, although only 'identity' is accepted"
        )
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise RemoteError(
                f"{url} answered more than {MAX_RESPONSE_BYTES >> 20} MiB; lower texts_per_request"
            )
    return bytes(body)


def _is_uncompressed(response: httpx.Response) -> bool:
    return bool(response.headers.get("Content-Encoding", "identity").lower() == "identity")


async def _read_start(response: httpx.Response) -> bytes:
    """The start of an error response; empty if it is compressed, which nobody asked for."""
    body = bytearray()
    if not _is_uncompressed(response):
        return b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= _MAX_ERROR_BYTES:
            break
    return bytes(body[:_MAX_ERROR_BYTES])


def _parse_json(url: str, status: int, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        content = "a page of HTML" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes"
        raise RemoteError(
            f"{url} answered {content}, which is not JSON; does base_url name the server itself?",
            status=status,
        ) from None


def _redirect_message(url: str, response: httpx.Response) -> str:
    try:
        target = httpx.URL(url).join(response.headers["Location"]).copy_with(query=None)
        place = f"{target.scheme}://{target.netloc.decode('ascii', 'replace')}"
    except (httpx.InvalidURL, ValueError):
        place = "another address"
    return (
        f"{url} redirects to {place}, and redirects are not followed because key and texts would"
        " go there; give the final address as base_url"
    )


def _connection_error(url: str, error: httpx.TransportError) -> RemoteError:
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RemoteError(
                f"{url} shows a certificate that is not trusted ({cause.verify_message}); name its"
                " authority in the environment variable SSL_CERT_FILE"
            )
        cause = cause.__cause__ or cause.__context__
    return RemoteError(
        f"{url} cannot be reached or closed the connection ({reason}); is the server running, and"
        " is base_url right?",
        transient=True,
    )

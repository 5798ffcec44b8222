"""One request and its answer: sent, sent again where that helps, bounded in time and in size."""

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
from gpurerank.client.loop import keep, post
from gpurerank.client.refusals import refusal
from gpurerank.client.retry import Retry, retry_after_s
from gpurerank.errors import RemoteError

# What an answer may have at most: 256 vectors of 4,096 numbers written out are 25 MB.
LARGEST_ANSWER = 64 << 20
# What is read of a refusal, to say why.
_LARGEST_REFUSAL = 64 << 10
_CONNECT_S = 10.0
_IDLE_S = 30.0
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Attributes:
        url: Where to.
        body: Sent as JSON by POST; None is a GET.
        hidden: The texts in it, of which an error shows nothing.
    """

    url: str
    body: dict[str, Any] | None = None
    hidden: Sequence[str] = ()

    def content(self) -> bytes | None:
        """The body as it is sent, with each lone surrogate, which UTF-8 has not, as U+FFFD.

        The models of this package read lone surrogates so too.
        """
        if self.body is None:
            return None
        text = json.dumps(self.body, ensure_ascii=False, separators=(",", ":"))
        return _SURROGATE.sub("\ufffd", text).encode()


class Exchange:
    """The connections to one server; used on the loop of ``loop.py`` alone.

    Args:
        api_key: Sent as a bearer token, to this server alone: redirects are not followed.
        retry: When a request is sent again.
        request_timeout_s: From the first byte sent to the last byte read of one request.
        concurrency: Requests under way at once.
    """

    def __init__(
        self,
        *,
        api_key: str | None,
        retry: Retry,
        request_timeout_s: float,
        concurrency: int,
    ) -> None:
        self._key = api_key
        self._retry = retry
        self._timeout_s = request_timeout_s
        self._concurrency = concurrency
        self._trusted = _trusted()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient
        self._turn: asyncio.Semaphore

    async def ask(self, request: Request) -> Any:
        """The answer, from JSON.

        Raises:
            OverloadedError: The server is busy, and was each time.
            RemoteError: It cannot be reached, refuses, or answers what is no JSON.
        """
        self._connect()
        attempt = 1
        # Held through the pauses too: a server that is busy is not asked by those behind.
        async with self._turn:
            while True:
                try:
                    return await self._once(request)
                except RemoteError as error:
                    pause = self._retry.pause_s(error, attempt)
                    remaining = current_call().remaining_s()
                    if pause is None or (remaining is not None and pause >= remaining):
                        raise
                await self._retry.sleep(pause)
                attempt += 1

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._loop is asyncio.get_running_loop():
            self._loop = None
            await self._client.aclose()

    @property
    def used(self) -> bool:
        """Whether there may be connections."""
        return self._loop is not None

    def discard(self) -> None:
        """Closes the connections some time soon, from whatever thread."""
        if self.used:
            post(self.aclose)

    def _connect(self) -> None:
        """Makes the client of this loop; in a forked process the parent's is left alone."""
        if self._loop is asyncio.get_running_loop():
            return
        if self._loop is not None:
            # Kept: dropping it would close what the parent uses.
            self._of_parent = self._client
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            verify=self._trusted,
            # Each request is bounded as a whole, and their number by the semaphore.
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=self._concurrency,
                keepalive_expiry=_IDLE_S,
            ),
            follow_redirects=False,
        )
        self._turn = asyncio.Semaphore(self._concurrency)
        self._loop = asyncio.get_running_loop()
        keep(self)

    async def _once(self, request: Request) -> Any:
        url = request.url
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._send(request)
        except TimeoutError:
            raise RemoteError(
                f"{url} did not answer within {self._timeout_s:g} s; raise request_timeout_s, or"
                " lower texts_per_request"
            ) from None
        except httpx.TransportError as error:
            raise _unreachable(url, error) from None

    async def _send(self, request: Request) -> Any:
        url, content = request.url, request.content()
        headers = {} if content is None else {"Content-Type": "application/json"}
        method = "GET" if content is None else "POST"
        async with self._client.stream(method, url, content=content, headers=headers) as response:
            if response.is_success:
                return _parsed(url, response.status_code, await _read(url, response))
            if response.has_redirect_location:
                raise RemoteError(_redirect(url, response), status=response.status_code)
            body = await _beginning(response)
        hidden = [*request.hidden, self._key] if self._key else request.hidden
        after = retry_after_s(response.headers.get("Retry-After"), self._retry.now())
        raise refusal(url, response.status_code, body, retry_after_s=after, hidden=hidden)


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted; reading them takes 60 ms, so once a process."""
    return httpx.create_ssl_context()


async def _read(url: str, response: httpx.Response) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        # What it unpacks to cannot be bounded, and it was not asked for.
        raise RemoteError(
            f"{url} answered in the encoding {encoding[:40]!r}, which was not asked for"
        )
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise RemoteError(
                f"{url} answered more than {LARGEST_ANSWER >> 20} MiB; lower texts_per_request"
            )
    return bytes(body)


async def _beginning(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= _LARGEST_REFUSAL:
            break
    return bytes(body[:_LARGEST_REFUSAL])


def _parsed(url: str, status: int, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        kind = "a page of HTML" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes"
        raise RemoteError(
            f"{url} answered {kind}, which is not JSON; does base_url name the server itself?",
            status=status,
        ) from None


def _redirect(url: str, response: httpx.Response) -> str:
    try:
        target = httpx.URL(url).join(response.headers["Location"]).copy_with(query=None)
        place = f"{target.scheme}://{target.netloc.decode('ascii', 'replace')}"
    except (httpx.InvalidURL, ValueError):
        place = "another address"
    return (
        f"{url} sends on to {place}, where neither key nor texts are sent unasked; give the final"
        " address as base_url"
    )


def _unreachable(url: str, error: httpx.TransportError) -> RemoteError:
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ssl.SSLCertVerificationError):
            return RemoteError(
                f"{url} shows a certificate that is not trusted ({link.verify_message}); name its"
                " authority in the environment variable SSL_CERT_FILE"
            )
        link = link.__cause__ or link.__context__
    return RemoteError(
        f"{url} cannot be reached or broke off ({reason}); is the server up, and base_url right?",
        transient=True,
    )

"""What RemoteScorer and RemoteEmbedder share: options, connections and the discovered server."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gpurerank.calls import calling, current_call, stage
from gpurerank.errors import (
    ClosedError,
    DeadlineError,
    GPURerankError,
    InputError,
    RemoteError,
)
from gpurerank.remote.address import Address, plain_key
from gpurerank.remote.event_loop import Work, arun, run
from gpurerank.remote.retry import Clock, Retry
from gpurerank.types import Secret

if TYPE_CHECKING:
    import httpx

    from gpurerank.remote.discovery import Server
    from gpurerank.remote.http_client import HttpClient

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """The options that RemoteScorer and RemoteEmbedder share; described there."""

    base_url: str
    api_key: str | Secret | None = field(default=None, repr=False)
    model: str | None = None
    api: str = "auto"
    truncate: bool = False
    texts_per_request: int | None = None
    characters_per_request: int | None = None
    concurrency: int = 8
    request_timeout_s: float = 60.0
    timeout_s: float | None = None
    retry: Retry = field(default_factory=Retry)
    transport: httpx.AsyncBaseTransport | None = field(default=None, repr=False)
    clock: Clock = field(default_factory=Clock, repr=False)

    def check(self, apis: Iterable[str]) -> None:
        """Checks what can be checked without the server.

        Raises:
            InputError: An option is out of range.
        """
        if self.api != "auto" and self.api not in apis:
            raise InputError(f"api is {self.api!r}; it must be 'auto' or one of {', '.join(apis)}")
        if self.model is not None and not (isinstance(self.model, str) and self.model.strip()):
            raise InputError(f"model is {self.model!r}; give a name, or leave it out")
        for name in ("texts_per_request", "characters_per_request", "concurrency"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is {value!r}; it must be an integer of at least 1")
        for name in ("request_timeout_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be over 0")


class Session:
    """Sends requests to one server; safe between threads, tasks, event loops and forks.

    Args:
        options: Checked here.
        apis: The names that ``api`` may have.

    Raises:
        InputError: An option is wrong, or httpx is not installed.
    """

    def __init__(self, options: RemoteOptions, apis: Mapping[str, object]) -> None:
        options.check(apis)
        self.options = options
        self.address = Address.of(options.base_url)
        self._client = _http_client(options)
        self._server: Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        weakref.finalize(self, self._client.close_later).atexit = False

    @property
    def name(self) -> str:
        """The model as it was requested, else as the server names it, else the server's host."""
        served = self._server.model if self._server is not None else None
        return self.options.model or served or self.address.host

    def run(self, work: Work[Result]) -> Result:
        """Runs work that sends requests, as one call, and waits.

        Raises:
            ClosedError: The object was closed, before or meanwhile.
        """
        self.check_open()
        with calling(timeout_s=self.options.timeout_s), stage("remote"):
            return run(lambda: self._within_deadline(work))

    async def arun(self, work: Work[Result]) -> Result:
        """As ``run``, without blocking the event loop."""
        self.check_open()
        with calling(timeout_s=self.options.timeout_s), stage("remote"):
            return await arun(lambda: self._within_deadline(work))

    async def server(self) -> Server:
        """The server, which is asked for its kind unless ``api`` names it."""
        from gpurerank.remote.discovery import Server, find_server

        if self.options.api != "auto":
            return Server(provider=self.options.api, address=self.address)
        self._server = await find_server(self.address, self._client)
        return self._server

    async def post(self, url: str, body: dict[str, Any], hidden: Sequence[str]) -> Any:
        """Sends a body and returns the JSON of the response; raises as ``HttpClient.send``.

        Args:
            url: Address.
            body: Sent as JSON.
            hidden: Texts in the body, which no error message may quote.
        """
        from gpurerank.remote.discovery import forget_server
        from gpurerank.remote.http_client import HttpRequest

        try:
            return await self._client.send(HttpRequest(url, body, hidden))
        except RemoteError as error:
            if error.status in (404, 405):
                forget_server(self.address)
            raise

    def check_open(self) -> None:
        """Checks that calls are taken.

        Raises:
            ClosedError: The object was closed.
        """
        if self._closed:
            raise ClosedError("this object was closed; make a new one")

    def close(self) -> None:
        """Closes the connections; calls in flight fail. A second call does nothing."""
        if not self._closed:
            self._closed = True
            if self._client.is_connected:
                run(self._cancel_and_close)

    async def _within_deadline(self, work: Work[Result]) -> Result:
        # Imported here, as in ``for_each_concurrently``.
        import anyio

        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with anyio.fail_after(current_call().remaining_s()):
                return await work()
        except TimeoutError as error:
            if isinstance(error, GPURerankError):
                raise
            raise DeadlineError(
                "the deadline passed before the server answered; raise timeout_s or send fewer"
                " passages"
            ) from None
        except asyncio.CancelledError:
            # close() cancels too: then the caller gets a ClosedError instead of a cancellation.
            self.check_open()
            raise
        finally:
            self._tasks.discard(task)

    async def _cancel_and_close(self) -> None:
        loop = asyncio.get_running_loop()
        for task in self._tasks:
            # After a fork, tasks of the parent's loop may remain.
            if task.get_loop() is loop:
                task.cancel()
        await self._client.aclose()


def split_texts(texts: Sequence[str], *, max_texts: int, max_characters: int) -> Iterator[slice]:
    """Splits texts into slices for one request each; a text over the limit is alone."""
    start = characters = 0
    for index, text in enumerate(texts):
        is_over = index > start and characters + len(text) > max_characters
        if index - start >= max_texts or is_over:
            yield slice(start, index)
            start, characters = index, 0
        characters += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def _http_client(options: RemoteOptions) -> HttpClient:
    try:
        from gpurerank.remote.http_client import HttpClient
    except ModuleNotFoundError as error:
        raise InputError(
            f"base_url needs {error.name}, which is not installed; pip install 'gpurerank[client]'"
        ) from None
    return HttpClient(
        api_key=plain_key(options.api_key),
        retry=options.retry,
        request_timeout_s=options.request_timeout_s,
        concurrency=options.concurrency,
        transport=options.transport,
        clock=options.clock,
    )

"""What a remote object is made of: its options, its connections, the server that it found."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gpurerank.calls import calling, current_call, stage
from gpurerank.client.address import Address, plain_key
from gpurerank.client.loop import Work, arun, run
from gpurerank.client.retry import Retry
from gpurerank.errors import (
    ClosedError,
    DeadlineError,
    GPURerankError,
    InputError,
    RemoteError,
)
from gpurerank.types import Secret

if TYPE_CHECKING:
    from gpurerank.client.exchange import Exchange
    from gpurerank.client.probe import Server

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """What RemoteScorer and RemoteEmbedder have in common; see there."""

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

    def check(self, apis: Iterable[str]) -> None:
        """Checks what can be checked without the server.

        Raises:
            InputError: An option is out of range.
        """
        if self.api != "auto" and self.api not in apis:
            raise InputError(f"api is {self.api!r}; it must be 'auto' or one of {', '.join(apis)}")
        if self.model is not None and not (isinstance(self.model, str) and self.model.strip()):
            raise InputError(f"model is {self.model!r}; name one, or leave it out")
        for name in ("texts_per_request", "characters_per_request", "concurrency"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is {value!r}; it must be a whole number from 1")
        for name in ("request_timeout_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be over 0")


class Session:
    """Asks one server; safe between threads, tasks, event loops and forks.

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
        self._exchange = _exchange(options)
        self._server: Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        weakref.finalize(self, self._exchange.discard).atexit = False

    @property
    def name(self) -> str:
        """The model as it was asked for, or as the server calls it, or the server's host."""
        served = self._server.model if self._server is not None else None
        return self.options.model or served or self.address.host

    def run(self, work: Work[Result]) -> Result:
        """Waits for work that asks the server, as one call.

        Raises:
            ClosedError: The object was closed, before or meanwhile.
        """
        self.check_open()
        with calling(timeout_s=self.options.timeout_s), stage("remote"):
            return run(lambda: self._guarded(work))

    async def arun(self, work: Work[Result]) -> Result:
        """As ``run``, without blocking the event loop."""
        self.check_open()
        with calling(timeout_s=self.options.timeout_s), stage("remote"):
            return await arun(lambda: self._guarded(work))

    async def server(self) -> Server:
        """The server, asked what it is unless ``api`` says so."""
        from gpurerank.client.probe import Server, find_server

        if self.options.api != "auto":
            return Server(kind=self.options.api, address=self.address)
        self._server = await find_server(self.address, self._exchange)
        return self._server

    async def ask(self, url: str, body: dict[str, Any], hidden: Sequence[str]) -> Any:
        """The answer to a request, from JSON; raises as ``Exchange.ask``."""
        from gpurerank.client.exchange import Request
        from gpurerank.client.probe import forget_server

        try:
            return await self._exchange.ask(Request(url, body, hidden))
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
        """Closes the connections; calls under way fail. A second call does nothing."""
        if not self._closed:
            self._closed = True
            if self._exchange.used:
                run(self._shut)

    async def _guarded(self, work: Work[Result]) -> Result:
        # Here, as in ``work_through``.
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
            # Closed meanwhile, and not cancelled by the caller, who would not hear of it.
            self.check_open()
            raise
        finally:
            self._tasks.discard(task)

    async def _shut(self) -> None:
        here = asyncio.get_running_loop()
        for task in self._tasks:
            if task.get_loop() is here:
                task.cancel()
        await self._exchange.aclose()


def parts(texts: Sequence[str], *, most: int, characters: int) -> Iterator[slice]:
    """Neighbouring texts that go into one request; one over the limit goes alone."""
    start = size = 0
    for index, text in enumerate(texts):
        if index - start >= most or (index > start and size + len(text) > characters):
            yield slice(start, index)
            start, size = index, 0
        size += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def _exchange(options: RemoteOptions) -> Exchange:
    try:
        from gpurerank.client.exchange import Exchange
    except ModuleNotFoundError as error:
        raise InputError(
            f"base_url needs {error.name}, which is not installed; pip install 'gpurerank[client]'"
        ) from None
    return Exchange(
        api_key=plain_key(options.api_key),
        retry=options.retry,
        request_timeout_s=options.request_timeout_s,
        concurrency=options.concurrency,
    )

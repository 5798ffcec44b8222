"""What every route shares: the models, the limits, and the way a request is run."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import Request

from gpurerank.calls import Call, calling
from gpurerank.cascade import Cascade
from gpurerank.server.admission import Admission
from gpurerank.server.bodies import BodyReader
from gpurerank.server.json_body import too_many_items
from gpurerank.server.metrics import Metrics
from gpurerank.server.models import ServedModels
from gpurerank.server.options import ServerOptions
from gpurerank.server.refusal import Refusal
from gpurerank.server.tracing import span
from gpurerank.server.work_estimates import WorkEstimates
from gpurerank.types import Ranker

Result = TypeVar("Result")


class Service:
    """The state of a running server.

    Args:
        options: What it was told.
        models: What it serves.

    Attributes:
        limits: What comes from outside is held to.
        bodies: Reads the bodies of requests.
        draining: Whether it takes no more work.
        in_flight: Requests that were accepted and are not answered.
        lost: Whether a device answers no more, which only a new process mends.
    """

    def __init__(self, options: ServerOptions, models: ServedModels) -> None:
        self.options = options
        self.limits = options.limits
        self.bodies = BodyReader(options.limits)
        self.models = models
        self.metrics = Metrics(models)
        self.admission = Admission(options.limits.queued_s)
        self._estimates = WorkEstimates()
        self.metrics.queued_tokens.set_function(lambda: self.admission.queued_tokens)
        self.draining = False
        self.in_flight = 0
        self.lost = False
        self._works: set[asyncio.Future[Any]] = set()
        self._key = None if options.api_key is None else options.api_key.strip().encode()

    def check_key(self, request: Request) -> None:
        """Lets in who shows the key, with or without "Bearer" before it.

        Raises:
            Refusal: There is a key and it was not shown.
        """
        if self._key is None:
            return
        for name in ("authorization", "x-api-key"):
            shown = request.headers.get(name, "")
            scheme, _, rest = shown.partition(" ")
            if scheme.lower() == "bearer":
                shown = rest
            # Headers are bytes that were read as Latin-1.
            if hmac.compare_digest(shown.strip().encode("latin-1"), self._key):
                return
        raise Refusal(401, "the API key is missing or wrong", "wrong_key")

    @contextmanager
    def accepted(self) -> Iterator[None]:
        """Counts a request as one that is answered before the server ends.

        Raises:
            Refusal: The server ends.
        """
        if self.draining:
            raise _draining("the server is shutting down")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def abandon(self) -> None:
        """Ends what still runs, with an answer that says so."""
        for work in self._works:
            work.cancel()

    def check_query(self, query: str) -> None:
        """Holds a query to the limits.

        Raises:
            Refusal: It is blank or too long.
        """
        if not query.strip():
            raise Refusal(422, "query: it is blank; there is nothing to rank for", "invalid")
        if len(query) > self.limits.query_chars:
            raise _too_long("query", len(query), self.limits.query_chars)

    def check_texts(self, passages: Sequence[str], field: str) -> None:
        """Holds passages or texts to the limits.

        Raises:
            Refusal: There is nothing, too much, or a text that is too long.
        """
        if not passages:
            raise Refusal(400, f"{field}: the list is empty", "empty")
        if len(passages) > self.limits.passages:
            raise too_many_items(field, len(passages), self.limits.passages)
        for index, passage in enumerate(passages):
            if len(passage) > self.limits.passage_chars:
                raise _too_long(f"{field}.{index}", len(passage), self.limits.passage_chars)

    async def run(
        self,
        request: Request,
        ranker: Ranker,
        query: str,
        passages: list[str],
        work: Callable[[], Awaitable[Result]],
    ) -> tuple[Result, Call]:
        """Runs admitted work to its end, or until its client leaves.

        Args:
            request: The client's.
            ranker: The model that does the work.
            query: The query, or the longest of several; empty where texts are embedded.
            passages: Passages or texts.
            work: Starts the work.

        Raises:
            Refusal: Too much waits, the time to drain is over, or the client left.
            GPURerankError: The work failed, or was not done in time.
        """
        estimate = self._estimates.estimate(ranker, query, passages)
        # A cascade tells of the progress of its first model too, which is not that of the request.
        report = None if isinstance(ranker, Cascade) else estimate.report
        with (
            self.admission.admitted(estimate),
            calling(timeout_s=self.limits.answer_s, on_progress=report, counts_tokens=True) as call,
            span(passages=len(passages), tokens=round(estimate.tokens)),
        ):
            self.metrics.passages.inc(len(passages))
            result = await self._unless_left(request, work)
        self._estimates.learn(ranker, query, passages, call.counted.get("tokens", 0))
        for stage, spent_ms in call.stages_ms.items():
            self.metrics.stage_seconds.labels(stage).observe(spent_ms / 1000)
        self.metrics.usage_tokens.inc(call.counted.get("tokens", 0))
        self.metrics.model_tokens.inc(call.counted.get("model_tokens", 0))
        return result, call

    async def _unless_left(self, request: Request, work: Callable[[], Awaitable[Result]]) -> Result:
        task = asyncio.ensure_future(work())
        left = asyncio.ensure_future(_left(request))
        self._works.add(task)
        try:
            await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
            if task.cancelled():
                raise _draining("the server shut down before this was answered")
            if not task.done():
                self.metrics.cancelled.inc()
                # Nobody reads it; 499 is what proxies write into their logs.
                raise Refusal(499, "the client left", "left")
            return task.result()
        finally:
            self._works.discard(task)
            task.cancel()
            left.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _draining(message: str) -> Refusal:
    return Refusal(503, message, "draining", retry_after_s=5)


def _too_long(field: str, found: int, limit: int) -> Refusal:
    message = f"{field}: {found:,} characters are over the limit of {limit:,}"
    return Refusal(413, message, "too_large")

"""What every route shares: the models, the limits, and the way a request is run."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from starlette.requests import Request

from gpurerank.calls import Call, calling
from gpurerank.server.admission import Admission, estimated_tokens
from gpurerank.server.metrics import Metrics
from gpurerank.server.models import ServedModels
from gpurerank.server.options import ServerOptions
from gpurerank.server.refusal import Refusal
from gpurerank.server.tracing import span

Result = TypeVar("Result")


class Service:
    """The state of a running server.

    Args:
        options: What it was told.
        models: What it serves.

    Attributes:
        limits: What comes from outside is held to.
        draining: Whether it takes no more work.
    """

    def __init__(self, options: ServerOptions, models: ServedModels) -> None:
        self.options = options
        self.limits = options.limits
        self.models = models
        self.metrics = Metrics(models)
        self.admission = Admission(options.limits.queued_s)
        self.metrics.queued_tokens.set_function(lambda: self.admission.queued_tokens)
        self.draining = False
        self._key = None if options.api_key is None else options.api_key.encode()

    def check_key(self, request: Request) -> None:
        """Lets in who shows the key, with or without "Bearer" before it.

        Raises:
            Refusal: There is a key and it was not shown.
        """
        if self._key is None:
            return
        shown = request.headers.get("authorization") or request.headers.get("x-api-key") or ""
        scheme, _, rest = shown.partition(" ")
        if scheme.lower() == "bearer":
            shown = rest
        if not hmac.compare_digest(shown.strip().encode("utf-8", "replace"), self._key):
            raise Refusal(401, "the API key is missing or wrong", "wrong_key")

    def check_texts(self, query: str | None, passages: Sequence[str], field: str) -> None:
        """Holds a request to the limits.

        Raises:
            Refusal: There is nothing, too much, or a text that is too long.
        """
        if query is not None and not query.strip():
            raise Refusal(422, "query: it is blank; there is nothing to rank for", "invalid")
        if query is not None and len(query) > self.limits.query_chars:
            raise _too_long("query", len(query), self.limits.query_chars)
        if not passages:
            raise Refusal(400, f"{field}: the list is empty", "empty")
        if len(passages) > self.limits.passages:
            raise Refusal(
                413,
                f"{field}: {len(passages):,} are over the limit of {self.limits.passages:,};"
                " send them in parts",
                "too_large",
            )
        for index, passage in enumerate(passages):
            if len(passage) > self.limits.passage_chars:
                raise _too_long(f"{field}.{index}", len(passage), self.limits.passage_chars)

    async def run(
        self,
        request: Request,
        query: str,
        passages: list[str],
        work: Callable[[], Awaitable[Result]],
    ) -> tuple[Result, Call]:
        """Runs admitted work to its end, or until its client leaves.

        Raises:
            Refusal: Too much waits, the server drains, or the client left.
            GPURerankError: The work failed, or was not done in time.
        """
        if self.draining:
            raise Refusal(503, "the server is shutting down", "draining", retry_after_s=5)
        tokens = estimated_tokens(query, passages)
        with (
            self.admission.admitted(tokens),
            calling(timeout_s=self.limits.answer_s) as call,
            span(request, passages=len(passages), tokens=tokens),
        ):
            self.metrics.passages.inc(len(passages))
            result = await self._unless_left(request, work)
        for stage, spent_ms in call.stages_ms.items():
            self.metrics.stage_seconds.labels(stage).observe(spent_ms / 1000)
        self.metrics.tokens.inc(call.counted.get("tokens", 0))
        return result, call

    async def _unless_left(self, request: Request, work: Callable[[], Awaitable[Result]]) -> Result:
        task = asyncio.ensure_future(work())
        left = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.metrics.cancelled.inc()
                # Nobody reads it; 499 is what proxies write into their logs.
                raise Refusal(499, "the client left", "left")
            return task.result()
        finally:
            task.cancel()
            left.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_long(field: str, found: int, limit: int) -> Refusal:
    message = f"{field}: {found:,} characters are over the limit of {limit:,}"
    return Refusal(413, message, "too_large")

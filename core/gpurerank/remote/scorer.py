"""The remote scorer: pairs scored by a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurerank.calls import current_call
from gpurerank.remote.event_loop import for_each_concurrently
from gpurerank.remote.providers import RERANK_APIS
from gpurerank.remote.providers.provider import RerankApi, RerankRequest
from gpurerank.remote.responses import read_scores
from gpurerank.remote.retry import Retry
from gpurerank.remote.session import RemoteOptions, Session, split_texts
from gpurerank.request import check_pairs
from gpurerank.types import Secret

if TYPE_CHECKING:
    import httpx

    from gpurerank.remote.discovery import Server


@dataclass(frozen=True, slots=True)
class _Part:
    """Documents of one query for one request, and the pairs that they belong to."""

    query: str
    documents: list[str]
    rows: list[int]


class RemoteScorer:
    """Scores pairs on a server: gpurerank's own, or one that speaks another rerank API.

    Safe to call from any thread, task and event loop, before and after a fork. Passages are sent
    whole: whether a long one is scored by its best window, truncated or rejected is up to the
    server; gpurerank's own takes the best window. Needs the extra ``client``. Proxies and
    certificates are taken from the environment, as in httpx.

    Args:
        base_url: The server, such as "http://gpu-server:8000"; "/v1" at its end makes no
            difference.
        api_key: Sent as a bearer token; a string or pydantic's SecretStr. Copies and pickles of
            this object contain it, its repr does not.
        model: Name of the model that the server should use; None for the one that it serves.
        api: "auto" finds out once what the server speaks; or the name of a provider: "gpurerank",
            "tei" (text-embeddings-inference), "vllm", "infinity", "cohere", "cohere_v1", "jina"
            (also LiteLLM, Xinference, llama.cpp) or "voyage".
        truncate: Whether the server may truncate what is too long for its model; otherwise it
            rejects it. Infinity, Cohere and Jina truncate in any case.
        logits: Whether the server returns logits, as llama.cpp does, and vLLM for some models;
            their sigmoid is taken here. If set wrongly, all scores lie in [0.5, 0.73].
        texts_per_request: Maximum passages in one request; None for the limit that the server
            states, or that of its provider.
        characters_per_request: Maximum characters of all passages in one request; None as above.
        concurrency: Maximum requests in flight, of all callers together.
        request_timeout_s: Seconds for one request; one that takes longer fails without a retry.
        timeout_s: Deadline of a call in seconds, including all of its requests and retries.
        retry: The retry budget for a server that is busy or cannot be reached.
        transport: What carries the requests, such as ``httpx.MockTransport``; None for the network.

    Raises:
        InputError: An option is wrong, or httpx is not installed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | Secret | None = None,
        model: str | None = None,
        api: str = "auto",
        truncate: bool = False,
        logits: bool = False,
        texts_per_request: int | None = None,
        characters_per_request: int | None = None,
        concurrency: int = 8,
        request_timeout_s: float = 60.0,
        timeout_s: float | None = None,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        options = RemoteOptions(
            base_url=base_url,
            api_key=api_key,
            model=model,
            api=api,
            truncate=truncate,
            texts_per_request=texts_per_request,
            characters_per_request=characters_per_request,
            concurrency=concurrency,
            request_timeout_s=request_timeout_s,
            timeout_s=timeout_s,
            retry=retry or Retry(),
            transport=transport,
        )
        self._connect(options, logits)

    @classmethod
    def from_options(cls, options: RemoteOptions, logits: bool = False) -> RemoteScorer:
        """The scorer of a set of options, which may also hold a clock of its own."""
        scorer = cls.__new__(cls)
        scorer._connect(options, logits)
        return scorer

    def _connect(self, options: RemoteOptions, logits: bool) -> None:
        self._session = Session(options, RERANK_APIS)
        self._logits = logits

    def __reduce__(self) -> tuple[Callable[..., RemoteScorer], tuple[object, ...]]:
        return RemoteScorer.from_options, (self._session.options, self._logits)

    def __repr__(self) -> str:
        options = self._session.options
        return f"RemoteScorer({options.base_url!r}, model={options.model!r}, api={options.api!r})"

    def __enter__(self) -> RemoteScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model_name(self) -> str:
        """The model as requested, else as the server names it, else the server's host."""
        return self._session.name

    def identity(self) -> list[str]:
        """What a score depends on apart from the pair, for the key of a score cache.

        Without ``model`` it does not say which model the server uses: name the model if scores are
        cached for longer than the server keeps its model.
        """
        options, address = self._session.options, self._session.address
        return [
            "remote",
            address.root,
            options.model or "",
            options.api,
            f"truncate={options.truncate} logits={self._logits}",
        ]

    def score_pairs(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """The score of each pair, in [0, 1], input order.

        Raises:
            InputError: A pair is not two strings.
            DeadlineError: The deadline passed.
            OverloadedError: The server was busy at each attempt.
            RemoteError: It cannot be reached, returns an error, or an invalid response.
            NotFiniteError: It returned NaN or infinity.
        """
        checked = check_pairs(pairs)
        return self._session.run(lambda: self._scores(checked))

    async def ascore_pairs(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking; cancelling the task closes its requests."""
        checked = check_pairs(pairs)
        return await self._session.arun(lambda: self._scores(checked))

    def close(self) -> None:
        """Closes the connections; calls in flight fail."""
        self._session.close()

    async def _scores(self, pairs: list[tuple[str, str]]) -> list[float]:
        if not pairs:
            return []
        server = await self._session.server()
        api = RERANK_APIS.get(server.provider, RERANK_APIS["jina"])
        scores, done, call = [0.0] * len(pairs), 0, current_call()

        async def score_part(part: _Part) -> None:
            nonlocal done
            part_scores = await self._score_part(part, server, api)
            for row, score in zip(part.rows, part_scores, strict=True):
                scores[row] = score
            done += len(part.rows)
            if call.on_progress is not None:
                call.on_progress(done, len(pairs))

        parts = list(self._parts(pairs, server, api))
        concurrency = min(self._session.options.concurrency, len(parts))
        await for_each_concurrently(parts, score_part, concurrency=concurrency)
        return scores

    async def _score_part(self, part: _Part, server: Server, api: RerankApi) -> list[float]:
        options = self._session.options
        logits = self._logits or server.returns_logits
        request = RerankRequest(
            model=options.model,
            query=part.query,
            documents=part.documents,
            truncate=options.truncate,
            logits=logits,
        )
        url = server.address.url(api.path)
        hidden = [part.query, *part.documents]
        response = await self._session.post(url, api.body(request), hidden)
        return read_scores(response, len(part.documents), logits=logits, url=url)

    def _parts(
        self, pairs: list[tuple[str, str]], server: Server, api: RerankApi
    ) -> Iterator[_Part]:
        options = self._session.options
        by_query: dict[str, list[int]] = {}
        for row, (query, _) in enumerate(pairs):
            by_query.setdefault(query, []).append(row)
        for query, rows in by_query.items():
            documents = [pairs[row][1] for row in rows]
            for part in split_texts(
                documents,
                max_texts=options.texts_per_request or server.max_texts or api.max_documents,
                max_characters=options.characters_per_request or api.max_characters,
            ):
                yield _Part(query, documents[part], rows[part])

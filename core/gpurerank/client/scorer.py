"""The remote scorer: pairs scored by a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurerank.calls import current_call
from gpurerank.client.answers import scores_of
from gpurerank.client.apis import RERANK_APIS, Question, RerankApi
from gpurerank.client.loop import work_through
from gpurerank.client.retry import Retry
from gpurerank.client.session import RemoteOptions, Session, parts
from gpurerank.request import check_pairs
from gpurerank.types import Secret

if TYPE_CHECKING:
    from gpurerank.client.probe import Server


@dataclass(frozen=True, slots=True)
class _Part:
    """Documents of one query that go into one request, and which pairs they are."""

    query: str
    documents: list[str]
    rows: list[int]


class RemoteScorer:
    """Scores pairs on a server: gpurerank's own, or one that speaks another rerank API.

    Safe to call from any thread, task and event loop, before and after a fork. The server reads a
    passage whole, or cuts it, or refuses it, as it is built; gpurerank's own takes the best window.
    Needs the extra ``client``. Proxies and certificates of the environment are heeded, as httpx
    does.

    Args:
        base_url: The server, such as "http://gpu-server:8000"; "/v1" at its end makes no
            difference.
        api_key: Sent as a bearer token; a text or pydantic's SecretStr. Copies and pickles of this
            object hold it, what it shows of itself does not.
        model: Which model the server is to use; None for the one that it serves.
        api: "auto" asks the server once what it is, see ``client/probe.py``; or "gpurerank", "tei"
            (text-embeddings-inference), "vllm", "infinity", "cohere", "cohere_v1", "jina" (also
            LiteLLM, Xinference, llama.cpp) or "voyage".
        truncate: Whether the server may cut what is too long for its model, where it can be told;
            by default it refuses. Infinity, Cohere and Jina cut unasked.
        logits: Whether the server gives logits, as llama.cpp does and vLLM for some models; their
            sigmoid is taken here. Wrong, it squeezes every score into [0.5, 0.73].
        texts_per_request: Passages of one request at most; None for what the server says, or what
            servers of its kind take.
        characters_per_request: Of all passages in one request; None as above.
        concurrency: Requests under way at once, of all callers.
        request_timeout_s: Of one request; after it the server is given up, and not asked again.
        timeout_s: Deadline of a call, all its requests and repetitions included.
        retry: How often a server is asked again that is busy or cannot be reached.

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
        )
        self._begin(options, logits)

    def _begin(self, options: RemoteOptions, logits: bool) -> None:
        self._session = Session(options, RERANK_APIS)
        self._logits = logits

    def __reduce__(self) -> tuple[Callable[..., RemoteScorer], tuple[object, ...]]:
        return _rebuild, (self._session.options, self._logits)

    def __repr__(self) -> str:
        options = self._session.options
        return f"RemoteScorer({options.base_url!r}, model={options.model!r}, api={options.api!r})"

    def __enter__(self) -> RemoteScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model_name(self) -> str:
        """The model as it was asked for; else as the server calls it, once asked; else its host."""
        return self._session.name

    def identity(self) -> list[str]:
        """What a score depends on beside the pair, as far as it is known here.

        Without ``model`` that leaves out what stands behind the address: name it where scores are
        kept longer than a model is served.
        """
        options, address = self._session.options, self._session.address
        return [
            "remote",
            address.root,
            options.model or "",
            options.api,
            f"truncate={options.truncate} logits={self._logits}",
        ]

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each pair, in [0, 1], input order.

        Raises:
            InputError: A pair is not two strings.
            DeadlineError: The deadline passed.
            OverloadedError: The server was busy each time that it was asked.
            RemoteError: It cannot be reached, refuses, or answers what cannot be used.
            NotFiniteError: It answered NaN or infinity.
        """
        listed = _checked(pairs)
        return self._session.run(lambda: self._scores(listed))

    async def ascore_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking; cancelling the task closes its requests."""
        listed = _checked(pairs)
        return await self._session.arun(lambda: self._scores(listed))

    def close(self) -> None:
        """Closes the connections; calls under way fail."""
        self._session.close()

    async def _scores(self, pairs: list[tuple[str, str]]) -> list[float]:
        if not pairs:
            return []
        server = await self._session.server()
        api = RERANK_APIS.get(server.kind, RERANK_APIS["jina"])
        scores, done, call = [0.0] * len(pairs), 0, current_call()

        async def ask(part: _Part) -> None:
            nonlocal done
            for row, score in zip(part.rows, await self._answer(part, server, api), strict=True):
                scores[row] = score
            done += len(part.rows)
            if call.on_progress is not None:
                call.on_progress(done, len(pairs))

        asked = list(self._parts(pairs, server, api))
        at_once = min(self._session.options.concurrency, len(asked))
        await work_through(asked, ask, at_once=at_once)
        return scores

    async def _answer(self, part: _Part, server: Server, api: RerankApi) -> list[float]:
        options = self._session.options
        logits = self._logits or server.gives_logits
        question = Question(
            model=options.model,
            query=part.query,
            documents=part.documents,
            truncate=options.truncate,
            logits=logits,
        )
        url = server.address.url(api.path)
        hidden = [part.query, *part.documents]
        answer = await self._session.ask(url, api.body(question), hidden)
        return scores_of(answer, len(part.documents), logits=logits, where=url)

    def _parts(
        self, pairs: list[tuple[str, str]], server: Server, api: RerankApi
    ) -> Iterator[_Part]:
        options = self._session.options
        by_query: dict[str, list[int]] = {}
        for row, (query, _) in enumerate(pairs):
            by_query.setdefault(query, []).append(row)
        for query, rows in by_query.items():
            documents = [pairs[row][1] for row in rows]
            for part in parts(
                documents,
                most=options.texts_per_request or server.most or api.documents,
                characters=options.characters_per_request or api.characters,
            ):
                yield _Part(query, documents[part], rows[part])


def _checked(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    check_pairs(pairs)
    return [(query, passage) for query, passage in pairs]


def _rebuild(options: RemoteOptions, logits: bool) -> RemoteScorer:
    scorer = RemoteScorer.__new__(RemoteScorer)
    scorer._begin(options, logits)
    return scorer

"""The remote embedder: texts made into vectors by a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpurerank.calls import current_call
from gpurerank.client.answers import vectors_of
from gpurerank.client.apis import EMBED_APIS, EmbedApi, Texts
from gpurerank.client.loop import work_through
from gpurerank.client.retry import Retry
from gpurerank.client.session import RemoteOptions, Session, parts
from gpurerank.errors import InputError, RemoteError
from gpurerank.progress import progress_bar
from gpurerank.request import check_texts
from gpurerank.types import FloatArray, Secret

if TYPE_CHECKING:
    from gpurerank.client.probe import Server

# Vectors this near to length 1 are the server's own normalised ones and keep their bits.
_NORMALISED = 1e-3


class RemoteEmbedder:
    """Embeds texts on a server: gpurerank's own, or one that speaks another embedding API.

    Vectors have length 1. A text that is too long for the server's model is cut, as by BiEncoder,
    where the server can be told to. Safe to call from any thread, task and event loop, before and
    after a fork. Needs the extra ``client``.

    Args:
        base_url: The server, such as "http://gpu-server:8000"; "/v1" at its end makes no
            difference.
        api_key: As in RemoteScorer.
        model: Which model the server is to use; None for the one that it serves.
        api: "auto" asks the server once what it is; or "gpurerank", "tei"
            (text-embeddings-inference), "vllm", "infinity", "openai", "cohere", "jina" (version 3
            and later of its models) or "voyage".
        query_prompt: Goes before each query. Not for servers that are told queries from passages:
            gpurerank, Cohere, Jina, Voyage.
        passage_prompt: Goes before each passage; as above.
        texts_per_request: Of one request at most; None for what the server says, or what servers
            of its kind take.
        characters_per_request: Of all texts in one request; None as above.
        concurrency: Requests under way at once, of all callers.
        request_timeout_s: As in RemoteScorer.
        timeout_s: Deadline of a call.
        retry: As in RemoteScorer.

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
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
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
            truncate=True,
            texts_per_request=texts_per_request,
            characters_per_request=characters_per_request,
            concurrency=concurrency,
            request_timeout_s=request_timeout_s,
            timeout_s=timeout_s,
            retry=retry or Retry(),
        )
        self._begin(options, query_prompt, passage_prompt)

    def _begin(
        self, options: RemoteOptions, query_prompt: str | None, passage_prompt: str | None
    ) -> None:
        self._session = Session(options, EMBED_APIS)
        self._prompts = (query_prompt, passage_prompt)
        self._dim = 0

    def __reduce__(self) -> tuple[Callable[..., RemoteEmbedder], tuple[object, ...]]:
        return _rebuild, (self._session.options, *self._prompts)

    def __repr__(self) -> str:
        options = self._session.options
        return f"RemoteEmbedder({options.base_url!r}, model={options.model!r}, api={options.api!r})"

    def __enter__(self) -> RemoteEmbedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model_name(self) -> str:
        """The model as it was asked for; else as the server calls it, once asked; else its host."""
        return self._session.name

    def embed_queries(self, queries: Sequence[str], *, show_progress: bool = False) -> FloatArray:
        """Vectors of queries; shape (queries, dim), float32; (0, 0) as long as dim is not known.

        Raises:
            InputError: A query is not a string.
            DeadlineError: The deadline passed.
            OverloadedError: The server was busy each time that it was asked.
            RemoteError: It cannot be reached, refuses, or answers what cannot be used.
            NotFiniteError: It answered NaN or infinity.
        """
        return self._run(queries, is_query=True, show_progress=show_progress)

    def embed_passages(self, passages: Sequence[str], *, show_progress: bool = False) -> FloatArray:
        """Vectors of passages; shape (passages, dim), float32; otherwise as ``embed_queries``."""
        return self._run(passages, is_query=False, show_progress=show_progress)

    async def aembed_queries(self, queries: Sequence[str]) -> FloatArray:
        """As ``embed_queries``, without blocking; cancelling the task closes its requests."""
        listed = check_texts(queries, "query")
        return await self._session.arun(lambda: self._vectors(listed, is_query=True))

    async def aembed_passages(self, passages: Sequence[str]) -> FloatArray:
        """As ``embed_passages``, without blocking; cancelling the task closes its requests."""
        listed = check_texts(passages, "passage")
        return await self._session.arun(lambda: self._vectors(listed, is_query=False))

    def close(self) -> None:
        """Closes the connections; calls under way fail."""
        self._session.close()

    def _run(self, texts: Sequence[str], *, is_query: bool, show_progress: bool) -> FloatArray:
        listed = check_texts(texts, "query" if is_query else "passage")
        with progress_bar("embedding", len(listed), shown=show_progress):
            return self._session.run(lambda: self._vectors(listed, is_query=is_query))

    async def _vectors(self, texts: list[str], *, is_query: bool) -> FloatArray:
        if not texts:
            return np.empty((0, self._dim), dtype=np.float32)
        server = await self._session.server()
        api = EMBED_APIS[server.kind]
        prompted = self._prompted(texts, server, is_query=is_query)
        found: dict[int, FloatArray] = {}
        done, call = 0, current_call()

        async def ask(part: slice) -> None:
            nonlocal done
            question = Texts(
                model=self._session.options.model, texts=prompted[part], is_query=is_query
            )
            found[part.start] = await self._answer(question, server, api)
            done += len(question.texts)
            if call.on_progress is not None:
                call.on_progress(done, len(texts))

        options = self._session.options
        asked = list(
            parts(
                prompted,
                most=options.texts_per_request or server.most or api.texts,
                characters=options.characters_per_request or api.characters,
            )
        )
        await work_through(asked, ask, at_once=min(options.concurrency, len(asked)))
        return self._joined([found[part.start] for part in asked])

    async def _answer(self, question: Texts, server: Server, api: EmbedApi) -> FloatArray:
        url = server.address.url(api.path)
        answer = await self._session.ask(url, api.body(question), question.texts)
        return vectors_of(answer, len(question.texts), where=url)

    def _prompted(self, texts: list[str], server: Server, *, is_query: bool) -> list[str]:
        prompt = self._prompts[0 if is_query else 1]
        if prompt is None:
            return texts
        if EMBED_APIS[server.kind].knows_roles:
            raise InputError(
                f"{'query_prompt' if is_query else 'passage_prompt'} is set, and a {server.kind}"
                " server sets its own prompts; leave it out"
            )
        return [prompt + text for text in texts]

    def _joined(self, found: list[FloatArray]) -> FloatArray:
        """All vectors, each of length 1, none of another dim than before."""
        dims = {vectors.shape[1] for vectors in found} | ({self._dim} if self._dim else set())
        if len(dims) > 1:
            raise RemoteError(
                f"{self._session.address.host} answered vectors of {sorted(dims)} numbers; does it"
                " serve another model now? make a new RemoteEmbedder, and embed all texts anew"
            )
        self._dim = dims.pop()
        vectors = np.concatenate(found)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if np.abs(norms - 1.0).max() < _NORMALISED:
            return vectors
        return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def _rebuild(
    options: RemoteOptions, query_prompt: str | None, passage_prompt: str | None
) -> RemoteEmbedder:
    embedder = RemoteEmbedder.__new__(RemoteEmbedder)
    embedder._begin(options, query_prompt, passage_prompt)
    return embedder

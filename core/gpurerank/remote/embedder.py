"""The remote embedder: vectors of texts, computed by a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from gpurerank.calls import current_call
from gpurerank.cosine import unit_vectors
from gpurerank.errors import InputError, RemoteError
from gpurerank.progress import progress_bar
from gpurerank.remote.event_loop import for_each_concurrently
from gpurerank.remote.providers import EMBED_APIS
from gpurerank.remote.providers.provider import EmbedApi, EmbedRequest
from gpurerank.remote.responses import read_vectors
from gpurerank.remote.retry import Retry
from gpurerank.remote.session import RemoteOptions, Session, split_texts
from gpurerank.request import check_texts
from gpurerank.types import FloatArray, Secret

if TYPE_CHECKING:
    import httpx

    from gpurerank.remote.discovery import Server

# Vectors whose length differs less from 1 were normalised by the server and are left unchanged.
_LENGTH_TOLERANCE = 1e-3


class RemoteEmbedder:
    """Embeds texts on a server: gpurerank's own, or one that speaks another embedding API.

    Vectors have length 1. A text that is too long for the server's model is truncated, as in
    BiEncoder, if the provider supports it. Safe to call from any thread, task and event loop,
    before and after a fork. Needs the extra ``client``.

    Args:
        base_url: The server, such as "http://gpu-server:8000"; "/v1" at its end makes no
            difference.
        api_key: As in RemoteScorer.
        model: Name of the model that the server should use; None for the one that it serves.
        api: "auto" finds out once what the server speaks; or the name of a provider: "gpurerank",
            "tei" (text-embeddings-inference), "vllm", "infinity", "openai", "cohere", "jina"
            (version 3 and later of its models) or "voyage".
        query_prompt: Text before each query. Not for providers that distinguish queries from
            passages themselves: gpurerank, Cohere, Jina, Voyage.
        passage_prompt: Text before each passage; as above.
        texts_per_request: Maximum texts in one request; None for the limit that the server states,
            or that of its provider.
        characters_per_request: Maximum characters of all texts in one request; None as above.
        concurrency: Maximum requests in flight, of all callers together.
        request_timeout_s: As in RemoteScorer.
        timeout_s: Deadline of a call in seconds.
        retry: As in RemoteScorer.
        transport: As in RemoteScorer.

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
        transport: httpx.AsyncBaseTransport | None = None,
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
            transport=transport,
        )
        self._connect(options, query_prompt, passage_prompt)

    def _connect(
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
        """The model as requested, else as the server names it, else the server's host."""
        return self._session.name

    def embed_queries(self, queries: Iterable[str], *, show_progress: bool = False) -> FloatArray:
        """Vectors of queries, shape (queries, dim), float32; (0, 0) while dim is not known.

        Raises:
            InputError: A query is not a string.
            DeadlineError: The deadline passed.
            OverloadedError: The server was busy at each attempt.
            RemoteError: It cannot be reached, returns an error, or an invalid response.
            NotFiniteError: It returned NaN or infinity.
        """
        return self._run(queries, is_query=True, show_progress=show_progress)

    def embed_passages(self, passages: Iterable[str], *, show_progress: bool = False) -> FloatArray:
        """Vectors of passages, shape (passages, dim), float32; otherwise as ``embed_queries``."""
        return self._run(passages, is_query=False, show_progress=show_progress)

    async def aembed_queries(self, queries: Iterable[str]) -> FloatArray:
        """As ``embed_queries``, without blocking; cancelling the task closes its requests."""
        listed = check_texts(queries, "query")
        return await self._session.arun(lambda: self._vectors(listed, is_query=True))

    async def aembed_passages(self, passages: Iterable[str]) -> FloatArray:
        """As ``embed_passages``, without blocking; cancelling the task closes its requests."""
        listed = check_texts(passages, "passage")
        return await self._session.arun(lambda: self._vectors(listed, is_query=False))

    def close(self) -> None:
        """Closes the connections; calls in flight fail."""
        self._session.close()

    def _run(self, texts: Iterable[str], *, is_query: bool, show_progress: bool) -> FloatArray:
        listed = check_texts(texts, "query" if is_query else "passage")
        with progress_bar("embedding", len(listed), shown=show_progress):
            return self._session.run(lambda: self._vectors(listed, is_query=is_query))

    async def _vectors(self, texts: list[str], *, is_query: bool) -> FloatArray:
        if not texts:
            return np.empty((0, self._dim), dtype=np.float32)
        server = await self._session.server()
        api = EMBED_APIS[server.provider]
        prompted = self._add_prompt(texts, server, is_query=is_query)
        options, call = self._session.options, current_call()
        vectors: dict[int, FloatArray] = {}
        done = 0

        async def embed_part(part: slice) -> None:
            nonlocal done
            request = EmbedRequest(model=options.model, texts=prompted[part], is_query=is_query)
            vectors[part.start] = await self._embed_part(request, server, api)
            done += len(request.texts)
            if call.on_progress is not None:
                call.on_progress(done, len(texts))

        parts = list(
            split_texts(
                prompted,
                max_texts=options.texts_per_request or server.max_texts or api.max_texts,
                max_characters=options.characters_per_request or api.max_characters,
            )
        )
        concurrency = min(options.concurrency, len(parts))
        await for_each_concurrently(parts, embed_part, concurrency=concurrency)
        return self._concatenate([vectors[part.start] for part in parts])

    async def _embed_part(self, request: EmbedRequest, server: Server, api: EmbedApi) -> FloatArray:
        url = server.address.url(api.path)
        response = await self._session.post(url, api.body(request), request.texts)
        return read_vectors(response, len(request.texts), url=url)

    def _add_prompt(self, texts: list[str], server: Server, *, is_query: bool) -> list[str]:
        prompt = self._prompts[0 if is_query else 1]
        if prompt is None:
            return texts
        if EMBED_APIS[server.provider].knows_roles:
            option = "query_prompt" if is_query else "passage_prompt"
            raise InputError(
                f"{option} is set, but a {server.provider} server adds its own; leave it out"
            )
        return [prompt + text for text in texts]

    def _concatenate(self, parts: list[FloatArray]) -> FloatArray:
        """All vectors, of length 1 and of the same dim as in earlier calls."""
        dims = {vectors.shape[1] for vectors in parts} | ({self._dim} if self._dim else set())
        if len(dims) > 1:
            raise RemoteError(
                f"{self._session.address.host} returned vectors of {sorted(dims)} numbers; if it"
                " serves another model now, make a new RemoteEmbedder and embed all texts again"
            )
        self._dim = dims.pop()
        vectors = np.concatenate(parts)
        lengths = np.linalg.norm(vectors, axis=1)
        is_normalised = np.abs(lengths - 1.0).max() < _LENGTH_TOLERANCE
        return vectors if is_normalised else unit_vectors(vectors)


def _rebuild(
    options: RemoteOptions, query_prompt: str | None, passage_prompt: str | None
) -> RemoteEmbedder:
    embedder = RemoteEmbedder.__new__(RemoteEmbedder)
    embedder._connect(options, query_prompt, passage_prompt)
    return embedder

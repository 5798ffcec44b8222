"""Embeddings over a bi-encoder, or over a server."""

from __future__ import annotations

from typing import cast

from langchain_core.embeddings import Embeddings
from pydantic import SecretStr

from gpurerank import open_embedder


class GPUEmbeddings(Embeddings):
    """Embeds documents and queries, each with the model's own prompt.

    Args:
        model: "embedded", a folder or a hub id; this and all below as in ``gpurerank.BiEncoder``.
        device: "auto" or a torch device.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: Branch, tag or commit on the hub.
        max_length: Tokens of a text; None is the model's own limit.
        query_prompt: Goes before each query, in place of the model's own prompt.
        show_progress: Whether long work shows a progress bar.
        trust_remote_code: Whether code from the model's repository may run.
        base_url: A server that embeds in place of a model in this process.
        api_key: Of that server.
    """

    def __init__(
        self,
        model: str = "embedded",
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        max_length: int | None = None,
        query_prompt: str | None = None,
        show_progress: bool = False,
        trust_remote_code: bool = False,
        base_url: str | None = None,
        api_key: str | SecretStr | None = None,
    ) -> None:
        self._show_progress = show_progress
        self._encoder = open_embedder(
            model,
            device=device,
            dtype=dtype,
            revision=revision,
            max_length=max_length,
            query_prompt=query_prompt,
            trust_remote_code=trust_remote_code,
            base_url=base_url,
            api_key=api_key,
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""
        vectors = self._encoder.embed_passages(texts, show_progress=self._show_progress)
        return cast(list[list[float]], vectors.tolist())

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return cast(list[float], self._encoder.embed_queries([text])[0].tolist())

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As ``embed_documents``, without blocking the event loop."""
        vectors = await self._encoder.aembed_passages(texts)
        return cast(list[list[float]], vectors.tolist())

    async def aembed_query(self, text: str) -> list[float]:
        """As ``embed_query``, without blocking the event loop."""
        vectors = await self._encoder.aembed_queries([text])
        return cast(list[float], vectors[0].tolist())

"""The embedding over a bi-encoder, or over a server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SecretStr
from llama_index.core.schema import BaseNode

from gpurerank import BiEncoder, InputError, RemoteEmbedder, open_embedder, read_items


class GPUEmbedding(BaseEmbedding):
    """Embeds nodes and queries, each with the model's own prompt.

    Attributes:
        model_name: "embedded", a folder or a hub id; this and all below as in
            ``gpurerank.BiEncoder``.
        device: "auto" or a torch device.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: Branch, tag or commit on the hub.
        max_length: Tokens of a text; None is the model's own limit.
        query_prompt: Goes before each query, in place of the model's own prompt.
        trust_remote_code: Whether code from the model's repository may run.
        base_url: A server that embeds in place of a model in this process.
        api_key: Of that server; in no dump.
    """

    model_name: str = "embedded"
    embed_batch_size: int = Field(default=2048, gt=0, le=2048)
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    max_length: int | None = None
    query_prompt: str | None = None
    trust_remote_code: bool = False
    base_url: str | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)

    _encoder: BiEncoder | RemoteEmbedder = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Loads the model, so that a wrong name fails here and not in the first query."""
        super().model_post_init(context)
        self._encoder = open_embedder(
            self.model_name,
            device=self.device,
            dtype=self.dtype,
            revision=self.revision,
            max_length=self.max_length,
            query_prompt=self.query_prompt,
            trust_remote_code=self.trust_remote_code,
            base_url=self.base_url,
            api_key=self.api_key,
        )

    @classmethod
    def class_name(cls) -> str:
        """The name in serialized pipelines."""
        return "GPUEmbedding"

    # The base class reads texts and nodes twice, which leaves nothing of an iterator.
    def get_text_embedding_batch(
        self, texts: Iterable[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """One vector for each text."""
        return super().get_text_embedding_batch(_texts(texts), show_progress, **kwargs)

    async def aget_text_embedding_batch(
        self, texts: Iterable[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """As ``get_text_embedding_batch``, without blocking the event loop."""
        return await super().aget_text_embedding_batch(_texts(texts), show_progress, **kwargs)

    def __call__(self, nodes: Iterable[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embeds nodes in place, as a step of an ingestion pipeline."""
        return super().__call__(_nodes(nodes), **kwargs)

    async def acall(self, nodes: Iterable[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """As ``__call__``, without blocking the event loop."""
        return await super().acall(_nodes(nodes), **kwargs)

    def _get_query_embedding(self, query: str) -> list[float]:
        return _floats(self._encoder.embed_queries([query]))[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return _floats(await self._encoder.aembed_queries([query]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return _floats(self._encoder.embed_passages([text]))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return _floats(await self._encoder.aembed_passages([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _floats(self._encoder.embed_passages(texts))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _floats(await self._encoder.aembed_passages(texts))


def _texts(texts: Iterable[str]) -> list[str]:
    return read_items(texts, "the texts are", "a list of strings")


def _nodes(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    checked = read_items(nodes, "the nodes are", "a list of nodes")
    for index, node in enumerate(checked):
        if not isinstance(node, BaseNode):
            raise InputError(f"node {index} is {type(node).__name__}; give a TextNode")
    return checked


def _floats(vectors: Any) -> list[list[float]]:
    return cast(list[list[float]], vectors.tolist())

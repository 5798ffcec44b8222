"""The embedding over a bi-encoder, or over a server."""

from __future__ import annotations

from typing import Any, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SecretStr

from gpurerank import BiEncoder, RemoteEmbedder, open_embedder


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


def _floats(vectors: Any) -> list[list[float]]:
    return cast(list[list[float]], vectors.tolist())

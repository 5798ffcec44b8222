"""Chroma's embedding function over a bi-encoder; importing this registers it."""

from __future__ import annotations

from typing import Any, cast

from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
from chromadb.utils.embedding_functions import register_embedding_function

from gpurerank.bi_encoder import BiEncoder
from gpurerank.errors import InputError


@register_embedding_function
class GPUEmbeddingFunction(EmbeddingFunction[Documents]):
    """Embeds documents and queries of a Chroma collection.

    The name and the options are stored with the collection, so one that is opened again embeds as
    before once this module is imported. Chroma builds an embedding function many times over; the
    model is loaded when it is first needed, and kept by the process until
    ``gpurerank.free_models()``.

    Args:
        model: "embedded", a folder or a hub id.
        device: "auto" or a torch device; not stored with the collection.
        dtype: "auto", "float32", "bfloat16" or "float16".
        revision: Branch, tag or commit on the hub.
        max_length: Tokens of a text; None is the model's own limit.
        query_prompt: Goes before each query, in place of the model's own prompt.
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
    ) -> None:
        self._config: dict[str, Any] = {
            "model": model,
            "dtype": dtype,
            "revision": revision,
            "max_length": max_length,
            "query_prompt": query_prompt,
        }
        self._device = device
        self._encoder: BiEncoder | None = None

    def __call__(self, input: Documents) -> Embeddings:
        """One vector for each document."""
        return cast(Embeddings, list(self._bi_encoder().embed_passages(input)))

    def embed_query(self, input: Documents) -> Embeddings:
        """One vector for each query, with the model's query prompt."""
        return cast(Embeddings, list(self._bi_encoder().embed_queries(input)))

    @staticmethod
    def name() -> str:
        """The name that Chroma stores."""
        return "gpurerank"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> GPUEmbeddingFunction:
        """The function of a stored configuration; loads no model."""
        GPUEmbeddingFunction.validate_config(config)
        return GPUEmbeddingFunction(**config)

    def get_config(self) -> dict[str, Any]:
        """What Chroma stores: JSON-safe."""
        return dict(self._config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Checks a stored configuration.

        Raises:
            InputError: It holds an option that does not exist.
        """
        known = {"model", "dtype", "revision", "max_length", "query_prompt"}
        unknown = sorted(set(config) - known)
        if unknown or "model" not in config:
            raise InputError(
                f"the stored embedding configuration has unknown options {unknown}; known are"
                f" {sorted(known)}, and 'model' is needed"
            )

    def validate_config_update(
        self, old_config: dict[str, Any], new_config: dict[str, Any]
    ) -> None:
        """Checks a change of a collection's configuration.

        Raises:
            InputError: The model would change: its vectors would not match the stored ones.
        """
        for option in ("model", "revision"):
            if old_config.get(option) != new_config.get(option):
                raise InputError(
                    f"{option} cannot change from {old_config.get(option)!r} to"
                    f" {new_config.get(option)!r}: stored vectors came from the old one; make a"
                    " new collection"
                )

    def default_space(self) -> Space:
        """Distance of new collections."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """Distances that make sense for these vectors."""
        return ["cosine", "l2", "ip"]

    def _bi_encoder(self) -> BiEncoder:
        if self._encoder is None:
            self._encoder = BiEncoder(device=self._device, **self._config)
        return self._encoder

"""Chroma's embedding function over a bi-encoder; importing this registers it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any, cast

from chromadb.api.models.CollectionCommon import CollectionCommon
from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
from chromadb.utils.embedding_functions import register_embedding_function

from gpurerank.bi_encoder import BiEncoder
from gpurerank.errors import InputError


@register_embedding_function
class GPUEmbeddingFunction(EmbeddingFunction[Documents]):
    """Embeds documents and queries of a Chroma collection.

    The name and the options are stored with the collection, so a collection that is opened again
    embeds as before once this module is imported. Chroma builds an embedding function many times;
    the model is loaded when it is first needed, and stays in the process until
    ``gpurerank.free_models()``.

    The model of a collection cannot change: ``collection.modify`` with another model, and adding to
    or querying a collection with another model than the stored one, raise ``InputError`` before
    anything is written.

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
        self._check_collection()
        return cast(Embeddings, list(self._bi_encoder().embed_passages(input)))

    def embed_query(self, input: Documents) -> Embeddings:
        """One vector for each query, with the model's query prompt."""
        self._check_collection()
        return cast(Embeddings, list(self._bi_encoder().embed_queries(input)))

    @staticmethod
    def name() -> str:
        """The name that Chroma stores."""
        return "gpurerank"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> GPUEmbeddingFunction:
        """The function of a stored configuration; loads no model."""
        _check_options(config)
        return GPUEmbeddingFunction(**config)

    def get_config(self) -> dict[str, Any]:
        """What Chroma stores: JSON-safe."""
        return dict(self._config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Checks a configuration before Chroma stores it.

        Raises:
            InputError: It has an unknown option, or it would replace the configuration of a
                collection whose vectors came from another model.
        """
        _check_options(config)
        # ``Collection.modify`` stores the new configuration first and calls
        # ``validate_config_update`` afterwards; this call is the last one before the write.
        collection = _calling_collection()
        if collection is not None:
            _check_same_model(collection, config)

    def validate_config_update(
        self, old_config: dict[str, Any], new_config: dict[str, Any]
    ) -> None:
        """Checks a change of a collection's configuration.

        Raises:
            InputError: The model would change: its vectors would not match the stored ones.
        """
        change = _model_change(old_config, new_config)
        if change is not None:
            raise InputError(_refusal(*change))

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

    def _check_collection(self) -> None:
        """Checks that the collection that asks for vectors holds vectors of this model.

        ``get_collection`` and ``get_or_create_collection`` compare the names of embedding functions
        only, so Chroma accepts a function with another model.
        """
        collection = _calling_collection()
        if collection is not None:
            _check_same_model(collection, self._config)


def _check_options(config: dict[str, Any]) -> None:
    known = {"model", "dtype", "revision", "max_length", "query_prompt"}
    unknown = sorted(set(config) - known)
    if unknown or "model" not in config:
        raise InputError(
            f"the stored embedding configuration has unknown options {unknown}; known are"
            f" {sorted(known)}, and 'model' is needed"
        )


def _calling_collection() -> CollectionCommon[Any] | None:
    """The Chroma collection whose method is running on this thread, if there is one.

    Chroma passes an embedding function neither its collection nor the stored configuration, so the
    call stack is the only place to find them. Without a collection there, nothing is checked.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if "self" in frame.f_code.co_varnames[:1]:
            caller = frame.f_locals.get("self")
            if isinstance(caller, CollectionCommon):
                return caller
        frame = frame.f_back
    return None


def _check_same_model(collection: CollectionCommon[Any], config: dict[str, Any]) -> None:
    """Compares a configuration with the one that a collection has stored.

    Raises:
        InputError: The collection holds vectors of another model or another function.
    """
    stored = (collection.configuration_json or {}).get("embedding_function") or {}
    name = stored.get("name")
    if name is None:
        # A legacy collection: nobody knows where its vectors came from.
        return
    if name != GPUEmbeddingFunction.name():
        change: tuple[str, Any, Any] | None = (
            "the embedding function",
            name,
            GPUEmbeddingFunction.name(),
        )
    else:
        change = _model_change(stored.get("config") or {}, config)
    if change is not None:
        raise InputError(f"collection {collection.name!r}: {_refusal(*change)}")


def _model_change(stored: dict[str, Any], config: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The option that tells two models apart and its two values; None for the same model."""
    if not _is_same_name(str(stored.get("model")), str(config.get("model"))):
        return "model", stored.get("model"), config.get("model")
    if stored.get("revision") != config.get("revision"):
        return "revision", stored.get("revision"), config.get("revision")
    return None


def _is_same_name(stored: str, name: str) -> bool:
    if stored == name:
        return True
    # A folder may have been moved, or downloaded from the hub: only its last part identifies it.
    has_folder = any(Path(each).is_absolute() or Path(each).is_dir() for each in (stored, name))
    return has_folder and Path(stored).name == Path(name).name


def _refusal(option: str, stored: Any, value: Any) -> str:
    return (
        f"{option} cannot change from {stored!r} to {value!r}: the stored vectors came from"
        f" {stored!r}; leave embedding_function out to use it, or make a new collection"
    )

"""A persistent Chroma collection that follows its passages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import chromadb
from chromadb.config import Settings

from gpurerank.chroma import GPUEmbeddingFunction
from gpurerank.demo.corpus import SourcePassage
from gpurerank.errors import DataError

PASSAGES_PER_STEP = 128


@dataclass(frozen=True, slots=True)
class Changes:
    """What bringing an index up to date did, in passages."""

    added: int
    removed: int
    kept: int


class Index:
    """One collection in a folder on disk.

    Args:
        folder: Where Chroma keeps its files.
        name: Name of the collection.
        embedding: What embeds passages and queries.
    """

    def __init__(self, folder: Path, name: str, embedding: GPUEmbeddingFunction) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # No telemetry: nothing leaves this machine.
            settings = Settings(anonymized_telemetry=False)
            client = chromadb.PersistentClient(str(folder), settings)
            self._collection = client.get_or_create_collection(
                name, embedding_function=cast(Any, embedding)
            )
        except OSError as error:
            raise DataError(f"the index folder {folder} cannot be used: {error}") from error
        self._embedding = embedding

    def update(
        self, passages: Sequence[SourcePassage], on_progress: Callable[[int, int], None]
    ) -> Changes:
        """Embeds what is new and removes what is gone; an interrupted run goes on next time.

        Args:
            passages: All passages that the index should hold.
            on_progress: Called with (passages embedded, passages to embed).
        """
        wanted = {passage.id: passage for passage in passages}
        held = set(self._collection.get(include=[])["ids"])
        # Longest first within the whole job: steps of equal length embed fastest.
        missing = sorted(wanted.keys() - held, key=lambda i: -len(wanted[i].text))
        gone = sorted(held - wanted.keys())
        for start in range(0, len(gone), 1_000):
            self._collection.delete(ids=gone[start : start + 1_000])
        on_progress(0, len(missing))
        for start in range(0, len(missing), PASSAGES_PER_STEP):
            ids = missing[start : start + PASSAGES_PER_STEP]
            self._collection.add(
                ids=ids,
                documents=[wanted[i].text for i in ids],
                metadatas=[{"source": wanted[i].source} for i in ids],
            )
            on_progress(start + len(ids), len(missing))
        return Changes(len(missing), len(gone), len(wanted) - len(missing))

    def embed(self, query: str) -> Sequence[float]:
        """The vector of a query."""
        return [float(value) for value in self._embedding.embed_query([query])[0]]

    def search(self, vector: Sequence[float], count: int) -> list[SourcePassage]:
        """The nearest passages, nearest first."""
        found = self._collection.query(
            query_embeddings=vector, n_results=count, include=["documents", "metadatas"]
        )
        documents, metadatas = found["documents"], found["metadatas"]
        if documents is None or metadatas is None:
            return []
        return [
            SourcePassage(str(metadata["source"]), document)
            for document, metadata in zip(documents[0], metadatas[0], strict=True)
        ]

"""A persistent Chroma collection that is updated to match a corpus."""

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

_PASSAGES_PER_STEP = 128
# Chroma hands the ids to SQLite, which limits the number of variables in a statement.
_DELETED_PER_STEP = 1_000


@dataclass(frozen=True, slots=True)
class IndexChanges:
    """Numbers of passages that an update added, removed and kept."""

    added: int
    removed: int
    kept: int


class ChromaIndex:
    """One collection in a folder on disk.

    Args:
        folder: Folder of Chroma's files; it is created if it does not exist.
        name: Name of the collection.
        embedding: Embeds passages and queries.

    Raises:
        DataError: The folder cannot be used.
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
    ) -> IndexChanges:
        """Embeds new passages and removes obsolete ones; an interrupted update can be repeated.

        Args:
            passages: All passages of the corpus.
            on_progress: Called with (passages embedded, passages to embed).
        """
        corpus = {passage.id: passage for passage in passages}
        indexed = set(self._collection.get(include=[])["ids"])
        # Sorted by length over the whole corpus: steps of similar lengths embed fastest.
        missing = sorted(corpus.keys() - indexed, key=lambda i: -len(corpus[i].text))
        obsolete = sorted(indexed - corpus.keys())
        for start in range(0, len(obsolete), _DELETED_PER_STEP):
            self._collection.delete(ids=obsolete[start : start + _DELETED_PER_STEP])
        on_progress(0, len(missing))
        for start in range(0, len(missing), _PASSAGES_PER_STEP):
            ids = missing[start : start + _PASSAGES_PER_STEP]
            self._collection.add(
                ids=ids,
                documents=[corpus[i].text for i in ids],
                metadatas=[{"source": corpus[i].source} for i in ids],
            )
            on_progress(start + len(ids), len(missing))
        return IndexChanges(len(missing), len(obsolete), len(corpus) - len(missing))

    def embed(self, query: str) -> Sequence[float]:
        """Embeds a query."""
        return [float(value) for value in self._embedding.embed_query([query])[0]]

    def search(self, vector: Sequence[float], count: int) -> list[SourcePassage]:
        """Finds the nearest passages, nearest first."""
        results = self._collection.query(
            query_embeddings=vector, n_results=count, include=["documents", "metadatas"]
        )
        documents, metadatas = results["documents"], results["metadatas"]
        if documents is None or metadatas is None:
            return []
        return [
            SourcePassage(str(metadata["source"]), document)
            for document, metadata in zip(documents[0], metadatas[0], strict=True)
        ]

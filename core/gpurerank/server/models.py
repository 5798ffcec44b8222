"""The models of a server, by the name that requests call them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from gpurerank.bi_encoder import BiEncoder
from gpurerank.cache import MemoryStore
from gpurerank.cascade import Cascade
from gpurerank.errors import GPURerankError
from gpurerank.reranker import Reranker
from gpurerank.server.options import ServerOptions
from gpurerank.server.refusal import Refusal
from gpurerank.types import Ranker

Model = TypeVar("Model")


class CountingStore(MemoryStore):
    """Scores in memory that says how often it knew one."""

    def __init__(self, max_entries: int) -> None:
        super().__init__(max_entries)
        self.hits = 0
        self.misses = 0

    def get(self, key: str) -> float | None:
        """The score, or None."""
        found = super().get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found


class ServedModels:
    """Loads every model of a server; ``close`` gives them back.

    Raises:
        GPURerankError: A model cannot be loaded; those before it are given back.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.rerankers: dict[str, Reranker] = {}
        self.embedders: dict[str, BiEncoder] = {}
        self.cache = CountingStore(options.cached_scores) if options.cached_scores else None
        device, dtype = options.device, options.dtype
        try:
            for named in options.rerankers:
                self.rerankers[named.name] = Reranker(
                    named.model,
                    device=device,
                    dtype=dtype,
                    max_length=options.max_length,
                    cache=self.cache,
                )
            for named in options.embedders:
                self.embedders[named.name] = BiEncoder(named.model, device=device, dtype=dtype)
        except GPURerankError:
            self.close()
            raise

    def reranker(self, name: str | None) -> Reranker:
        """The reranker of a name; of any name where there is one alone.

        Raises:
            Refusal: There is none of that name.
        """
        return _named(self.rerankers, name, "reranker")

    def embedder(self, name: str | None) -> BiEncoder:
        """The embedder of a name; of any name where there is one alone.

        Raises:
            Refusal: There is none of that name.
        """
        return _named(self.embedders, name, "embedder")

    def ranker(self, method: str, name: str | None, candidates: int) -> Ranker:
        """What ranks by a method: a cross-encoder, a bi-encoder, or both as a cascade.

        Raises:
            Refusal: There is no model for it.
        """
        if method == "bi-encoder":
            return self.embedder(name)
        if method == "cascade":
            return Cascade(self.embedder(None), self.reranker(name), candidates)
        return self.reranker(name)

    def served_name(self, name: str | None, *, embedder: bool = False) -> str:
        """The name of the model that answers to a name."""
        models: Mapping[str, Any] = self.embedders if embedder else self.rerankers
        return name if name is not None and name in models else next(iter(models))

    def names(self) -> Iterator[str]:
        """Every name, once."""
        yield from dict.fromkeys([*self.rerankers, *self.embedders])

    def close(self) -> None:
        """Gives every model back."""
        for reranker in self.rerankers.values():
            reranker.close()
        for embedder in self.embedders.values():
            embedder.close()


def _named(models: Mapping[str, Model], name: str | None, kind: str) -> Model:
    if not models:
        raise Refusal(404, f"this server has no {kind}", "no_model")
    # Clients have names of their own by default; with one model there is no mistake to make.
    if name is None or len(models) == 1:
        return models.get(name or "") or next(iter(models.values()))
    if name not in models:
        listed = ", ".join(models)
        raise Refusal(404, f"there is no {kind} {name[:100]!r}; there is {listed}", "no_model")
    return models[name]

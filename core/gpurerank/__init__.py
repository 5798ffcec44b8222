"""A rerank stage for RAG: cross-encoder, bi-encoder, and the cascade of both.

Names are resolved when first used: importing this loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpurerank.bi_encoder import BiEncoder
    from gpurerank.cache import DiskStore, MemoryStore, ScoreStore
    from gpurerank.calls import calling
    from gpurerank.cascade import Cascade
    from gpurerank.cluster.pool import RayScorer
    from gpurerank.cross_encoder import CrossEncoder
    from gpurerank.embedding import open_embedder
    from gpurerank.engine.registry import free_models
    from gpurerank.errors import (
        ClosedError,
        DataError,
        DeadlineError,
        GPURerankError,
        InputError,
        ModelError,
        ModelNotFoundError,
        NotFiniteError,
        OverloadedError,
        RemoteError,
        ScoringError,
        WeightsError,
    )
    from gpurerank.fusion import Fusion
    from gpurerank.ranking import LargestGap, TokenBudget
    from gpurerank.remote.embedder import RemoteEmbedder
    from gpurerank.remote.retry import Retry
    from gpurerank.remote.scorer import RemoteScorer
    from gpurerank.request import read_items
    from gpurerank.reranker import Reranker
    from gpurerank.reranker_options import RerankerOptions
    from gpurerank.settings import RerankSettings
    from gpurerank.types import CutOff, Pair, PairScorer, RankedPassage, Ranker, TextEmbedder

__version__ = "0.1.0"

_HOMES = {
    "bi_encoder": ("BiEncoder",),
    "cache": ("DiskStore", "MemoryStore", "ScoreStore"),
    "calls": ("calling",),
    "cascade": ("Cascade",),
    "remote.embedder": ("RemoteEmbedder",),
    "remote.retry": ("Retry",),
    "remote.scorer": ("RemoteScorer",),
    "cluster.pool": ("RayScorer",),
    "cross_encoder": ("CrossEncoder",),
    "errors": (
        "ClosedError",
        "DataError",
        "DeadlineError",
        "GPURerankError",
        "InputError",
        "ModelError",
        "ModelNotFoundError",
        "NotFiniteError",
        "OverloadedError",
        "RemoteError",
        "ScoringError",
        "WeightsError",
    ),
    "embedding": ("open_embedder",),
    "engine.registry": ("free_models",),
    "fusion": ("Fusion",),
    "ranking": ("LargestGap", "TokenBudget"),
    "request": ("read_items",),
    "reranker": ("Reranker",),
    "reranker_options": ("RerankerOptions",),
    "settings": ("RerankSettings",),
    "types": ("CutOff", "Pair", "PairScorer", "RankedPassage", "Ranker", "TextEmbedder"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BiEncoder",
    "Cascade",
    "ClosedError",
    "CrossEncoder",
    "CutOff",
    "DataError",
    "DeadlineError",
    "DiskStore",
    "Fusion",
    "GPURerankError",
    "InputError",
    "LargestGap",
    "MemoryStore",
    "ModelError",
    "ModelNotFoundError",
    "NotFiniteError",
    "OverloadedError",
    "Pair",
    "PairScorer",
    "RankedPassage",
    "Ranker",
    "RayScorer",
    "RemoteEmbedder",
    "RemoteError",
    "RemoteScorer",
    "RerankSettings",
    "Reranker",
    "RerankerOptions",
    "Retry",
    "ScoreStore",
    "ScoringError",
    "TextEmbedder",
    "TokenBudget",
    "WeightsError",
    "calling",
    "free_models",
    "open_embedder",
    "read_items",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

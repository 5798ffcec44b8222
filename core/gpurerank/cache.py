"""A scorer that remembers: the same pair is never scored twice by the same model."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gpurerank.awaiting import await_scores
from gpurerank.types import PairScorer

if TYPE_CHECKING:
    from cachetools import LRUCache
    from diskcache import Cache


@runtime_checkable
class ScoreStore(Protocol):
    """Where scores are kept, by key."""

    def get(self, key: str) -> float | None:
        """The score, or None."""
        ...

    def put(self, scores: dict[str, float]) -> None:
        """Keeps scores; may drop older ones."""
        ...


class MemoryStore:
    """The most recently used scores, in memory; safe to share between threads."""

    def __init__(self, max_entries: int = 100_000) -> None:
        from cachetools import LRUCache

        self._scores: LRUCache[str, float] = LRUCache(max_entries)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[MemoryStore], tuple[int]]:
        # A copy, and a store in another process, begins empty.
        return MemoryStore, (int(self._scores.maxsize),)

    def get(self, key: str) -> float | None:
        """The score, or None."""
        with self._lock:
            return self._scores.get(key)

    def put(self, scores: dict[str, float]) -> None:
        """Keeps scores and drops the least recently used beyond the limit."""
        with self._lock:
            self._scores.update(scores)


class DiskStore:
    """Scores in a folder, shared by processes and kept between them.

    Holds hashes and numbers, no text, and nothing is unpickled. Needs the extra ``cache``.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 1 << 30) -> None:
        from diskcache import Cache, JSONDisk

        # JSONDisk: the default store would unpickle whatever lies in the folder.
        self._scores: Cache = Cache(str(folder), disk=JSONDisk, size_limit=max_bytes)

    def get(self, key: str) -> float | None:
        """The score, or None."""
        score = self._scores.get(key)
        return score if isinstance(score, float) else None

    def put(self, scores: dict[str, float]) -> None:
        """Keeps scores in one transaction."""
        with self._scores.transact():
            for key, score in scores.items():
                self._scores.set(key, score)

    def close(self) -> None:
        """Closes the files."""
        self._scores.close()


class CachedScorer:
    """Wraps a scorer; only pairs that the store does not know reach it, each once a call.

    Args:
        scorer: What scores the unknown pairs.
        store: Where scores are kept.
        identity: What a score depends on beside the pair: model, revision, dtype, lengths, prompt.
    """

    def __init__(self, scorer: PairScorer, store: ScoreStore, *, identity: Sequence[str]) -> None:
        self._scorer = scorer
        self._store = store
        self._identity = tuple(identity)

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One score for each pair, input order."""
        keys, known, missing = self._look_up(pairs)
        fresh = self._scorer.score_pairs(list(missing.values())) if missing else []
        return self._merge(keys, known, missing, fresh)

    async def ascore_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``, without blocking the event loop."""
        keys, known, missing = self._look_up(pairs)
        fresh = await await_scores(self._scorer, list(missing.values())) if missing else []
        return self._merge(keys, known, missing, fresh)

    def _look_up(
        self, pairs: Sequence[tuple[str, str]]
    ) -> tuple[list[str], dict[str, float], dict[str, tuple[str, str]]]:
        keys = [cache_key(*self._identity, *pair) for pair in pairs]
        known: dict[str, float] = {}
        missing: dict[str, tuple[str, str]] = {}
        for key, pair in zip(keys, pairs, strict=True):
            if key in known or key in missing:
                continue
            score = self._store.get(key)
            if score is None:
                missing[key] = pair
            else:
                known[key] = score
        return keys, known, missing

    def _merge(
        self,
        keys: list[str],
        known: dict[str, float],
        missing: dict[str, tuple[str, str]],
        fresh: list[float],
    ) -> list[float]:
        scored = dict(zip(missing, fresh, strict=True))
        if scored:
            self._store.put(scored)
        known.update(scored)
        return [known[key] for key in keys]


def cache_key(*parts: str) -> str:
    """SHA-256 over the parts, each with its length before it, so that no two lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()

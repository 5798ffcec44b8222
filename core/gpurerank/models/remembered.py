"""Vectors that were computed before: a text is embedded once, whoever asks for it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from gpurerank.types import FloatArray

Item = tuple[str, str]
Vector = tuple[FloatArray, bool]

# 43,000 vectors of 384 numbers.
_MAX_BYTES = 64 << 20


class RememberedVectors:
    """The most recently used vectors of a model, by (prompt, text); safe to share between threads.

    Holds hashes and numbers, no text.

    Args:
        dim: Length of a vector.
        max_bytes: What the vectors may take together.
    """

    def __init__(self, dim: int, max_bytes: int = _MAX_BYTES) -> None:
        self._limit = max_bytes // (4 * max(dim, 1))
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, items: Sequence[Item]) -> list[Vector | None]:
        """The vector of each item and whether its text was cut; None where it is not known."""
        keys = [_key(item) for item in items]
        with self._lock:
            for key in keys:
                if key in self._vectors:
                    self._vectors.move_to_end(key)
            return [self._vectors.get(key) for key in keys]

    def keep(self, items: Sequence[Item], rows: FloatArray, truncated: Sequence[bool]) -> None:
        """Remembers vectors, shape (items, dim); the least recently used beyond the limit go."""
        # The last ones, where there are more than may be kept at all.
        first = max(0, len(items) - self._limit)
        # A row of its own: a view would hold the whole array.
        kept = {
            _key(items[row]): (np.array(rows[row]), truncated[row])
            for row in range(first, len(items))
        }
        with self._lock:
            self._vectors.update(kept)
            while len(self._vectors) > self._limit:
                self._vectors.popitem(last=False)


def _key(item: Item) -> bytes:
    prompt, text = (part.encode("utf-8", "surrogatepass") for part in item)
    digest = hashlib.blake2b(len(prompt).to_bytes(8, "big") + prompt, digest_size=16)
    digest.update(text)
    return digest.digest()

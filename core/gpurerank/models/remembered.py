"""Rows that were computed before: a text is embedded once, whoever asks for it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from gpurerank.types import Rows

Item = tuple[str, str]
# The model's output for a text, whether the text was cut, and its tokens.
Known = tuple[Rows, bool, int]


class RememberedRows:
    """What a model said of the most recently used texts, by (prompt, text); safe between threads.

    Holds hashes and numbers, no text.

    Args:
        max_bytes: What the rows may take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, items: Sequence[Item]) -> list[Known | None]:
        """The row of each item, whether its text was cut, and its tokens; None if not known."""
        keys = [_key(item) for item in items]
        with self._lock:
            for key in keys:
                if key in self._known:
                    self._known.move_to_end(key)
            return [self._known.get(key) for key in keys]

    def keep(
        self,
        items: Sequence[Item],
        rows: Rows,
        truncated: Sequence[bool],
        lengths: Sequence[int],
    ) -> None:
        """Remembers a row an item; the least recently used beyond the limit go."""
        # From the last one back, where there are more than may be kept at all.
        first, room = len(items), self._max_bytes
        while first > 0 and rows[first - 1].nbytes <= room:
            first -= 1
            room -= rows[first].nbytes
        kept = {
            _key(items[row]): (_own(rows[row]), truncated[row], lengths[row])
            for row in range(first, len(items))
        }
        with self._lock:
            for key, known in kept.items():
                before = self._known.pop(key, None)
                self._known[key] = known
                self._bytes += known[0].nbytes - (before[0].nbytes if before else 0)
            self._shrink()

    def limit(self, max_bytes: int) -> None:
        """Sets what the rows may take together; what is beyond it goes at once."""
        with self._lock:
            self._max_bytes = max_bytes
            self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes:
            _, (row, *_) = self._known.popitem(last=False)
            self._bytes -= row.nbytes


def _own(row: Rows) -> Rows:
    """A row of its own: a view would hold the whole array."""
    return row if row.base is None else np.array(row)


def _key(item: Item) -> bytes:
    prompt, text = (part.encode("utf-8", "surrogatepass") for part in item)
    digest = hashlib.blake2b(len(prompt).to_bytes(8, "big") + prompt, digest_size=16)
    digest.update(text)
    return digest.digest()

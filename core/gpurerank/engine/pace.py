"""How many tokens a batch may have: what fits, and what ends soon."""

from __future__ import annotations

# A running batch cannot be taken back, so nobody should wait long for one.
BATCH_S = 0.05
_SMOOTHING = 0.3
# Batches without failure after which a budget that was cut may grow again.
_CALM_BATCHES = 64


class Pace:
    """The token budget of the next batch.

    Args:
        least: Tokens of a batch below which the device is used badly, and the longest sequence.
        most: Tokens that a batch may have in any case: what bounds memory.
        batch_s: Time that a batch should take at most.

    Attributes:
        tokens_per_s: What the device has lately done, each item's tokens counted in full; 0 before
            the first batch.
    """

    def __init__(self, least: int, most: int, batch_s: float = BATCH_S) -> None:
        self.tokens_per_s = 0.0
        self._least = min(least, most)
        self._most = most
        self._ceiling = most
        self._batch_s = batch_s
        self._calm = 0

    @property
    def budget(self) -> int:
        """Tokens of the next batch."""
        wanted = max(self._least, int(self.tokens_per_s * self._batch_s))
        return max(1, min(wanted, self._ceiling))

    def ran(self, tokens: int, seconds: float) -> None:
        """Learns from a batch that succeeded."""
        rate = tokens / max(seconds, 1e-6)
        known = self.tokens_per_s
        self.tokens_per_s = known + _SMOOTHING * (rate - known) if known else rate
        self._calm += 1
        if self._calm >= _CALM_BATCHES and self._ceiling < self._most:
            self._calm = 0
            self._ceiling = min(self._most, self._ceiling + self._ceiling // 4 + 1)

    def shrink(self, tokens: int) -> None:
        """Learns from a batch that did not fit."""
        self._calm = 0
        self._ceiling = max(self._least, min(self._ceiling, tokens) // 2)

    def limit(self, most: int) -> None:
        """Lowers the most that a batch may have."""
        self._most = min(self._most, most)
        self._ceiling = min(self._ceiling, self._most)
        self._least = min(self._least, self._most)

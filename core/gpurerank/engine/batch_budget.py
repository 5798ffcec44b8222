"""The token budget of a batch: as much as fits into memory and finishes soon."""

from __future__ import annotations

# A running batch cannot be interrupted, so this bounds how long a new call waits for a lane.
BATCH_S = 0.05
# Weight of the newest batch in the moving average of the rate.
_SMOOTHING = 0.3
# What a full batch keeps of its weight with each later one, in the rate of full batches.
_FULL_BATCH_DECAY = 0.9
# Successful batches after which a budget that was lowered by an out-of-memory error grows again.
_BATCHES_BEFORE_GROWTH = 64


class BatchBudget:
    """The most tokens that the next batch may have.

    Follows the measured rate between two bounds, and stays lower for a while after a batch that
    did not fit into memory. Not locked: ``EngineState`` changes it under its own lock.

    Args:
        min_tokens: Fewer tokens use the device badly; also the longest sequence of the model.
        max_tokens: The most tokens of any batch, which bounds memory.
        batch_s: Seconds that a batch should take at most.

    Attributes:
        tokens_per_s: Moving average of the rate of recent batches; 0 before the first batch.
    """

    def __init__(self, min_tokens: int, max_tokens: int, batch_s: float = BATCH_S) -> None:
        self.tokens_per_s = 0.0
        self._min_tokens = min(min_tokens, max_tokens)
        self._max_tokens = max_tokens
        # Where the budget may rise to at present; lowered when memory runs out.
        self._ceiling = max_tokens
        self._batch_s = batch_s
        self._batches_since_shrink = 0
        self._full_tokens = 0.0
        self._full_seconds = 0.0

    @property
    def full_tokens_per_s(self) -> float:
        """Rate of full batches, for one lane: what the device does while much is waiting.

        Small batches are left out: most of their time is the same for a batch of any size. Before
        the first full one it is a guess on the high side.
        """
        if not self._full_seconds:
            return self._min_tokens / self._batch_s
        return self._full_tokens / self._full_seconds

    @property
    def tokens(self) -> int:
        """The most tokens of the next batch, at least 1."""
        in_time = max(self._min_tokens, int(self.tokens_per_s * self._batch_s))
        return max(1, min(in_time, self._ceiling))

    def record(self, tokens: int, seconds: float) -> None:
        """Updates the rate after a batch that succeeded."""
        rate = tokens / max(seconds, 1e-6)
        average = self.tokens_per_s
        self.tokens_per_s = average + _SMOOTHING * (rate - average) if average else rate
        if tokens >= self._min_tokens // 2:
            self._full_tokens = self._full_tokens * _FULL_BATCH_DECAY + tokens
            self._full_seconds = self._full_seconds * _FULL_BATCH_DECAY + max(seconds, 1e-6)
        self._batches_since_shrink += 1
        if (
            self._batches_since_shrink >= _BATCHES_BEFORE_GROWTH
            and self._ceiling < self._max_tokens
        ):
            self._batches_since_shrink = 0
            self._ceiling = min(self._max_tokens, self._ceiling + self._ceiling // 4 + 1)

    def shrink(self, tokens: int) -> None:
        """Halves the budget after a batch of ``tokens`` that did not fit into memory."""
        self._batches_since_shrink = 0
        self._ceiling = max(self._min_tokens, min(self._ceiling, tokens) // 2)

    def cap(self, max_tokens: int) -> None:
        """Lowers the most tokens of any batch for good."""
        self._max_tokens = min(self._max_tokens, max_tokens)
        self._ceiling = min(self._ceiling, self._max_tokens)
        self._min_tokens = min(self._min_tokens, self._max_tokens)

"""Estimates of what a request takes, before it is tokenized.

Tokens are estimated from characters, at a ratio that each model's answered requests correct.
Seconds follow from the rate at which the model's engine runs full batches: what waits under load
runs in full batches, while a small request alone costs mostly what a batch of any size does, and a
remembered, refused or cancelled one says nothing of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpurerank.bi_encoder import BiEncoder
from gpurerank.cascade import Cascade
from gpurerank.engine.stats import EngineStats
from gpurerank.reranker import Reranker
from gpurerank.server.admission import Work
from gpurerank.types import Ranker

# Usual in European languages; corrected by what requests really have.
_CHARS_PER_TOKEN = 4
# Begin, separator and end of a pair or text.
_SPECIAL_TOKENS = 3
# Smaller requests say little of the ratio: rounding and special tokens are most of them.
_MIN_LEARNED_TOKENS = 256
# The ratio follows about so many estimated tokens.
_REMEMBERED_TOKENS = 100_000.0
# Of natural text in any language, and of code; a request of one endless word is no measure.
_RATIOS = (0.5, 8.0)
# For a scorer without an engine, of which nothing is known.
_DEFAULT_TOKENS_PER_S = 2_000.0


class WorkEstimates:
    """Estimates the work of requests, and learns from those that were answered."""

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str], _Ratio] = {}

    def estimate(self, ranker: Ranker, query: str, passages: Sequence[str]) -> Work:
        """The work of a request; an empty query stands for none, where texts are embedded."""
        if isinstance(ranker, Cascade):
            first = self.estimate(ranker.bi_encoder, query, passages)
            candidates = sorted(passages, key=len, reverse=True)[: ranker.candidates]
            second = self.estimate(ranker.cross_encoder, query, candidates)
            return Work(first.tokens + second.tokens, first.seconds + second.seconds)
        tokens = _tokens_by_characters(ranker, query, passages) * self._ratio(ranker).value
        return Work(tokens, tokens / _tokens_per_s(ranker))

    def learn(self, ranker: Ranker, query: str, passages: Sequence[str], tokens: int) -> None:
        """Corrects the ratio by the tokens that an answered request had."""
        if isinstance(ranker, Cascade):
            return
        estimated = _tokens_by_characters(ranker, query, passages)
        if estimated >= _MIN_LEARNED_TOKENS and tokens:
            self._ratio(ranker).add(estimated, tokens)

    def _ratio(self, ranker: Ranker) -> _Ratio:
        return self._ratios.setdefault((type(ranker).__name__, ranker.model_name), _Ratio())


class _Ratio:
    """Tokens per estimated token, over the latest requests; 1 at first."""

    def __init__(self) -> None:
        self._estimated = self._actual = _REMEMBERED_TOKENS / 10

    @property
    def value(self) -> float:
        return min(max(self._actual / self._estimated, _RATIOS[0]), _RATIOS[1])

    def add(self, estimated: float, actual: float) -> None:
        kept = max(0.0, 1.0 - estimated / _REMEMBERED_TOKENS)
        self._estimated = self._estimated * kept + estimated
        self._actual = self._actual * kept + actual


def _tokens_by_characters(ranker: Ranker, query: str, passages: Sequence[str]) -> float:
    if isinstance(ranker, BiEncoder):
        texts = [query, *passages] if query else passages
        # An embedder cuts what is longer.
        return sum(min(_tokens_of(len(text)), ranker.max_length) for text in texts)
    return sum(_tokens_of(len(query) + len(passage)) for passage in passages)


def _tokens_of(chars: int) -> float:
    return _SPECIAL_TOKENS + chars / _CHARS_PER_TOKEN


def _tokens_per_s(ranker: Ranker) -> float:
    """The rate of the slowest engine behind a ranker; the engines of one work side by side."""
    engines: list[EngineStats | None] = []
    if isinstance(ranker, Reranker):
        engines = [ranker.stats(), ranker.late_stats()]
    elif isinstance(ranker, BiEncoder):
        engines = [ranker.stats()]
    rates = [stats.full_tokens_per_s for stats in engines if stats is not None]
    return max(1.0, min(rates, default=_DEFAULT_TOKENS_PER_S))

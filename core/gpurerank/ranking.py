"""From scores to a ranking: order, cut-offs, and what happens to ties and NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real

import numpy as np

from gpurerank.errors import InputError, NotFiniteError
from gpurerank.types import CutOff, FloatArray, RankedPassage

# A float64 sigmoid reaches 1.0 here; log-odds beyond it are all the same score.
LARGEST_LOGIT = 36.7


def sigmoid(logit: float) -> float:
    """Score of a logit, in [0, 1], in float64: no overflow, distinct up to 36."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(max(logit, -744.0))
    return odds / (1.0 + odds)


def sigmoids(logits: FloatArray) -> list[float]:
    """Scores of finite logits, shape (pairs,), as ``sigmoid`` gives them."""
    wide = np.clip(logits.astype(np.float64), -744.0, None)
    # exp of what is not positive alone: no overflow.
    odds = np.exp(-np.abs(wide))
    scores: list[float] = (np.where(wide >= 0, 1.0, odds) / (1.0 + odds)).tolist()
    return scores


def logit_of(score: float) -> float:
    """Log-odds of a score: the inverse of ``sigmoid``, held to a finite range.

    Raises:
        NotFiniteError: The score is NaN or outside [0, 1].
    """
    if not 0.0 <= score <= 1.0:
        raise NotFiniteError(f"a scorer returned {score}; a score lies in [0, 1]")
    if score == 0.0:
        return -744.0
    return LARGEST_LOGIT if score == 1.0 else math.log(score) - math.log1p(-score)


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestGap:
    """Keeps what stands above the largest gap between neighbouring logits.

    Attributes:
        at_least: Passages kept in any case.
    """

    at_least: int = 1

    def __post_init__(self) -> None:
        """Checks the option.

        Raises:
            InputError: ``at_least`` is below 1.
        """
        if self.at_least < 1:
            raise InputError(f"at_least is {self.at_least}; it must be 1 or more")

    def keep(self, ranked: Sequence[RankedPassage]) -> int:
        """How many passages to keep: all where no gap is larger than another."""
        # What scores 0, such as a blank passage, is no neighbour: every gap to it is huge.
        logits = [_logit(passage) for passage in ranked if passage.score != 0.0]
        gaps = [above - below for above, below in pairwise(logits)]
        if not gaps or max(gaps) == min(gaps):
            return max(len(logits), min(self.at_least, len(ranked)))
        candidates = range(self.at_least, len(logits))
        return max(candidates, key=lambda kept: gaps[kept - 1], default=len(logits))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBudget:
    """Keeps passages from the top while they fit a budget; stops at the first that does not.

    Attributes:
        max_tokens: Tokens that the kept passages may hold together.
        count_tokens: Tokens of a text; give the reading model's own count. Without it four
            characters count as one token.
    """

    max_tokens: int
    count_tokens: Callable[[str], int] | None = None

    def keep(self, ranked: Sequence[RankedPassage]) -> int:
        """How many passages to keep."""
        used = 0
        for kept, passage in enumerate(ranked):
            text = passage.passage
            used += self.count_tokens(text) if self.count_tokens else -(-len(text) // 4)
            if used > self.max_tokens:
                return kept
        return len(ranked)


def check_limits(top_k: int | None, threshold: float | None) -> None:
    """Checks the limits of a ranking.

    Raises:
        InputError: ``top_k`` is negative or no whole number, or ``threshold`` is no number.
    """
    if top_k is not None and (
        isinstance(top_k, bool) or not isinstance(top_k, Integral) or top_k < 0
    ):
        raise InputError(f"top_k is {top_k!r}; it must be a whole number from 0, or None for all")
    if threshold is not None and (
        isinstance(threshold, bool) or not isinstance(threshold, Real) or math.isnan(threshold)
    ):
        raise InputError(f"threshold is {threshold!r}; it must be a number, or None")


def rank(
    scored: Sequence[RankedPassage],
    *,
    top_k: int | None = None,
    threshold: float | None = None,
    cut_off: CutOff | None = None,
) -> list[RankedPassage]:
    """Orders scored passages, best first, and keeps what the limits allow.

    Sorted by logit, ties by input order. ``threshold`` drops what scores below it, which can leave
    none at all; then ``cut_off`` and ``top_k`` apply, whichever keeps fewer.

    Raises:
        InputError: A limit is out of range.
        NotFiniteError: A logit is NaN or infinite.
    """
    check_limits(top_k, threshold)
    for passage in scored:
        if not math.isfinite(_logit(passage)):
            raise NotFiniteError(f"passage {passage.index} has the logit {passage.logit}")
    ordered = sorted(scored, key=lambda passage: -_logit(passage))
    if threshold is not None:
        ordered = [p for p in ordered if p.score is not None and p.score >= threshold]
    if cut_off is None:
        ordered = ordered[:top_k]
    ranked = [passage.at(place) for place, passage in enumerate(ordered, 1)]
    if cut_off is not None and ranked:
        ranked = ranked[: cut_off.keep(ranked)]
    return ranked if top_k is None else ranked[:top_k]


def _logit(passage: RankedPassage) -> float:
    if passage.logit is None:
        raise NotFiniteError(f"passage {passage.index} has no logit")
    return passage.logit

"""What differences between two rankings, query by query, can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

Matrix = NDArray[np.float64]

FLIPS = 10_000
RESAMPLES = 5_000
LEVEL = 0.05
# Flips or resamples at a time: what bounds memory at many queries.
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """A ranking beside another, by the differences of a measure over the same queries.

    Attributes:
        difference: Mean over the queries; over 0 is better.
        low: Lower end of its 95% confidence interval.
        high: Upper end.
        p: Probability of so large a difference by chance, corrected for all comparisons.
        wins: Queries that are better.
        ties: Queries that are equal.
        losses: Queries that are worse.
    """

    difference: float
    low: float
    high: float
    p: float
    wins: int
    ties: int
    losses: int

    @property
    def verdict(self) -> int:
        """1 where it is better, -1 where it is worse, 0 where the data cannot tell."""
        return 0 if self.p >= LEVEL else int(math.copysign(1, self.difference))


def compare(differences: Matrix, seed: int) -> list[Comparison]:
    """One comparison for each row of differences, shape (comparisons, queries)."""
    if not len(differences):
        return []
    lows, highs = confidence_intervals(differences, seed)
    corrected = corrected_p_values(differences, seed)
    return [
        Comparison(
            difference=float(row.mean()),
            low=float(low),
            high=float(high),
            p=float(p),
            wins=int((row > 0).sum()),
            ties=int((row == 0).sum()),
            losses=int((row < 0).sum()),
        )
        for row, low, high, p in zip(differences, lows, highs, corrected, strict=True)
    ]


def corrected_p_values(differences: Matrix, seed: int, flips: int = FLIPS) -> Matrix:
    """P-values of a paired randomisation test, corrected for the number of comparisons.

    Under the null hypothesis it is chance which of both rankings a query's two values belong to, so
    each query's differences keep or change their sign together. The corrected value of a
    comparison is the share of sign changes under which the *largest* studentised difference, among
    it and all weaker ones, is as large as the one seen (step-down maximum): the probability of even
    one wrong finding stays below the level, however many rankings are tried and however alike they
    are.

    Args:
        differences: Shape (comparisons, queries).
        seed: Of the sign changes.
        flips: How many are drawn.

    Source: Smucker, Allan and Carterette, CIKM 2007 (randomisation in retrieval); Westfall and
    Young, Resampling-Based Multiple Testing, 1993 (the correction); Carterette, ACM TOIS 30(1),
    2012 (why retrieval needs one).
    """
    queries = differences.shape[1]
    # A sign change leaves the mean square as it is, so this orders as the t statistic does.
    spread = np.sqrt((differences**2).mean(axis=1, keepdims=True))
    scaled = np.divide(differences, spread, out=np.zeros_like(differences), where=spread > 0)
    seen = np.abs(scaled.mean(axis=1))
    order = np.argsort(seen, kind="stable")  # weakest first
    # What differs by rounding alone is as large.
    reached = seen[order] - 1e-12
    exceeded = np.zeros(len(seen))
    rng = np.random.default_rng(seed)
    step = max(1, _NUMBERS_AT_ONCE // queries)
    for start in range(0, flips, step):
        signs = rng.choice((-1.0, 1.0), size=(min(step, flips - start), queries))
        means = np.abs(signs @ scaled[order].T) / queries  # (flips, comparisons)
        exceeded += (np.maximum.accumulate(means, axis=1) >= reached).sum(axis=0)
    stepped = (1.0 + exceeded) / (1.0 + flips)
    corrected = np.empty_like(stepped)
    # A weaker comparison is never the surer one.
    corrected[order] = np.maximum.accumulate(stepped[::-1])[::-1]
    return corrected


def confidence_intervals(values: Matrix, seed: int) -> tuple[Matrix, Matrix]:
    """Ends of the 95% confidence interval of each row's mean, by the percentile bootstrap.

    Args:
        values: Shape (rows, queries).
        seed: Of the resampling.
    """
    if values.shape[1] < 2:
        return values[:, 0], values[:, 0]
    found = bootstrap(
        (values,),
        np.mean,
        axis=-1,
        n_resamples=RESAMPLES,
        batch=max(1, _NUMBERS_AT_ONCE // values.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(found.low), np.asarray(found.high)


def standard_error(differences: Sequence[float]) -> float:
    """Standard error of the mean; infinite where one value alone cannot tell."""
    if len(differences) < 2:
        return math.inf
    return float(np.std(differences, ddof=1) / math.sqrt(len(differences)))


def queries_needed(differences: Sequence[float]) -> int | None:
    """How many queries would show a true difference of this mean and spread.

    At a level of 5% in 4 of 5 tries: ((1.96 + 0.84) * standard deviation / mean) squared. None
    where there is no difference to show.
    """
    mean = float(np.mean(differences))
    if len(differences) < 2 or abs(mean) < 1e-9:
        return None
    return math.ceil((2.8 * float(np.std(differences, ddof=1)) / mean) ** 2)

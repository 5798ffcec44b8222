"""Statistics of the differences between two rankings, measured for the same queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

FloatMatrix = NDArray[np.float64]

SIGN_CHANGES = 10_000
RESAMPLES = 5_000
SIGNIFICANCE_LEVEL = 0.05
# Sign changes or resamples are drawn in parts of so many numbers (32 MB): with many queries all of
# them together would not fit into memory.
_NUMBERS_PER_PART = 4_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """One ranking against another, by the differences of a measure for the same queries.

    Attributes:
        difference: Mean over the queries; above 0 is better.
        low: Lower end of the 95% confidence interval of the mean.
        high: Upper end.
        p: P-value, corrected for the number of comparisons.
        wins: Queries with a higher value.
        ties: Queries with the same value.
        losses: Queries with a lower value.
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
        """1 if significantly better, -1 if significantly worse, 0 if not significant."""
        return 0 if self.p >= SIGNIFICANCE_LEVEL else int(math.copysign(1, self.difference))


def compare(differences: FloatMatrix, seed: int) -> list[Comparison]:
    """Tests several comparisons together.

    Args:
        differences: Shape (comparisons, queries).
        seed: Of the test and the intervals.

    Returns:
        One for each row; ``p`` is corrected for all of them.
    """
    if not len(differences):
        return []
    lows, highs = confidence_intervals(differences, seed)
    p_values = corrected_p_values(differences, seed)
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
        for row, low, high, p in zip(differences, lows, highs, p_values, strict=True)
    ]


def corrected_p_values(
    differences: FloatMatrix, seed: int, sign_changes: int = SIGN_CHANGES
) -> FloatMatrix:
    """P-values of a paired randomisation test, corrected for the number of comparisons.

    Under the null hypothesis either ranking could have produced either value of a query, so the
    differences of a query keep or change their sign together. The corrected p-value of a
    comparison is the share of sign changes under which the *largest* studentised difference among
    it and all weaker comparisons is at least as large as the observed one (step-down maximum). The
    probability of even one false positive stays below the level, however many rankings are compared
    and however correlated they are.

    Args:
        differences: Shape (comparisons, queries).
        seed: Of the sign changes.
        sign_changes: How many are drawn at random.

    Returns:
        Shape (comparisons,), in (0, 1].

    Source: Smucker, Allan and Carterette, CIKM 2007 (randomisation in retrieval); Westfall and
    Young, Resampling-Based Multiple Testing, 1993 (the correction); Carterette, ACM TOIS 30(1),
    2012 (why retrieval needs one).
    """
    queries = differences.shape[1]
    # A sign change leaves the mean square as it is, so this orders as the t statistic does.
    spread = np.sqrt((differences**2).mean(axis=1, keepdims=True))  # (comparisons, 1)
    scaled = np.divide(differences, spread, out=np.zeros_like(differences), where=spread > 0)
    observed = np.abs(scaled.mean(axis=1))  # (comparisons,)
    order = np.argsort(observed, kind="stable")  # weakest first
    # A sum in another order differs in its last bits; such a difference counts as equal.
    thresholds = observed[order] - 1e-12
    exceeded = np.zeros(len(observed))
    rng = np.random.default_rng(seed)
    step = max(1, _NUMBERS_PER_PART // queries)
    for start in range(0, sign_changes, step):
        signs = rng.choice((-1.0, 1.0), size=(min(step, sign_changes - start), queries))
        means = np.abs(signs @ scaled[order].T) / queries  # (sign changes, comparisons)
        exceeded += (np.maximum.accumulate(means, axis=1) >= thresholds).sum(axis=0)
    # The observed signs count as one draw: a p-value is never 0.
    uncorrected = (1.0 + exceeded) / (1.0 + sign_changes)
    corrected = np.empty_like(uncorrected)
    # A weaker comparison never has a smaller p-value than a stronger one.
    corrected[order] = np.maximum.accumulate(uncorrected[::-1])[::-1]
    return corrected


def confidence_intervals(values: FloatMatrix, seed: int) -> tuple[FloatMatrix, FloatMatrix]:
    """The 95% confidence interval of each row's mean, by the percentile bootstrap.

    Args:
        values: Shape (rows, queries).
        seed: Of the resampling.

    Returns:
        Lower and upper ends, each of shape (rows,).
    """
    # One query has nothing to resample, and scipy refuses it.
    if values.shape[1] < 2:
        return values[:, 0], values[:, 0]
    interval = bootstrap(
        (values,),
        np.mean,
        axis=-1,
        n_resamples=RESAMPLES,
        batch=max(1, _NUMBERS_PER_PART // values.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def standard_error(differences: Sequence[float]) -> float:
    """Standard error of the mean; infinite for fewer than two values."""
    if len(differences) < 2:
        return math.inf
    return float(np.std(differences, ddof=1) / math.sqrt(len(differences)))


def queries_needed(differences: Sequence[float]) -> int | None:
    """Queries that would show a true difference of this mean and spread.

    At a level of 5% with a power of 80%: ((1.96 + 0.84) * standard deviation / mean) squared.

    Returns:
        None where the mean is 0 or there are fewer than two values.
    """
    mean = float(np.mean(differences))
    if len(differences) < 2 or abs(mean) < 1e-9:
        return None
    return math.ceil((2.8 * float(np.std(differences, ddof=1)) / mean) ** 2)

"""Whether all contenders give the same scores; only then their times can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpurerank.benchmark.records import Agreement

Floats = NDArray[np.float64]

# Largest difference of two scores in [0, 1], and least rank correlation.
TOLERANCES = {"float32": (1e-3, 0.999), "bfloat16": (0.06, 0.97), "float16": (0.02, 0.99)}


def compare(
    contender: str, dtype: str, scores: Sequence[float], reference: Sequence[float]
) -> Agreement:
    """Holds the scores of a contender against the float32 reference's.

    Args:
        contender: Its name.
        dtype: What it multiplies in, which sets the tolerance.
        scores: In [0, 1].
        reference: Of the same pairs, same order.
    """
    tolerance, least = TOLERANCES[dtype]
    mine, theirs = np.asarray(scores, np.float64), np.asarray(reference, np.float64)
    if mine.shape != theirs.shape or not np.isfinite(mine).all():
        return Agreement(contender, 1.0, 0.0, False, tolerance, False)
    difference = float(np.abs(mine - theirs).max())
    correlation = rank_correlation(mine, theirs)
    # A tie within the tolerance is no other answer.
    same_top = bool(theirs[mine.argmax()] >= theirs.max() - tolerance)
    agrees = difference <= tolerance and correlation >= least and same_top
    return Agreement(contender, difference, correlation, same_top, tolerance, agrees)


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's: the correlation of ranks, ties sharing their mean rank; 1 for constants."""
    one, two = _ranks(first), _ranks(second)
    if one.std() == 0 or two.std() == 0:
        return float(np.array_equal(one, two))
    return float(np.corrcoef(one, two)[0, 1])


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Floats = (ends - (counts - 1) / 2)[inverse]
    return means

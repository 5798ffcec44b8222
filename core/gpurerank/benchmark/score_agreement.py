"""Whether contenders compute the same scores; only then can their times be compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpurerank.benchmark.bench_report import Agreement

Floats = NDArray[np.float64]

# Largest difference of two scores in [0, 1], and smallest rank correlation.
TOLERANCES = {"float32": (1e-3, 0.999), "bfloat16": (0.06, 0.97), "float16": (0.02, 0.99)}


def compare_scores(contender: str, dtype: str, scores: Floats, reference: Floats) -> Agreement:
    """Compares a contender's scores with those of the float32 reference, for the same pairs.

    Scores are in [0, 1], shape (pairs,), of two pairs or more; ``dtype`` sets the tolerance.
    """
    tolerance, min_correlation = TOLERANCES[dtype]
    if scores.shape != reference.shape or not np.isfinite(scores).all():
        return Agreement(contender, 1.0, 0.0, False, tolerance, False)
    difference = float(np.abs(scores - reference).max())
    # Spearman's correlation; ties are ranked by position in both.
    ranks = np.argsort(np.argsort([scores, reference], kind="stable"))
    correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    # Another first passage within the tolerance is a tie, not another answer.
    same_top = bool(reference[scores.argmax()] >= reference.max() - tolerance)
    agrees = difference <= tolerance and correlation >= min_correlation and same_top
    return Agreement(contender, difference, correlation, same_top, tolerance, agrees)

"""Significance of differences, against scipy and direct computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gpurerank.evaluation.significance import (
    compare,
    confidence_intervals,
    corrected_p_values,
    queries_needed,
    standard_error,
)


def random_differences(mean: float, queries: int = 40, rows: int = 1, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.3, (rows, queries))


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.1, -0.12])
def test_one_comparison_equals_scipys_paired_permutation_test(mean: float) -> None:
    (differences,) = random_differences(mean)
    ours = corrected_p_values(differences[None], seed=0)[0]
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert ours == pytest.approx(theirs, abs=0.012)


def test_few_queries_give_the_exact_p_value() -> None:
    differences = np.array([0.4, 0.3, 0.2, 0.5, -0.1, 0.25])
    signs = itertools.product((-1, 1), repeat=6)
    observed = abs(differences.mean())
    exact = np.mean([abs((np.array(s) * differences).mean()) >= observed - 1e-12 for s in signs])
    assert corrected_p_values(differences[None], seed=3)[0] == pytest.approx(exact, abs=0.008)


def test_the_correction_is_the_step_down_maximum() -> None:
    differences = np.stack([random_differences(0.11, seed=s)[0] for s in range(5)])
    differences[1] -= 0.08
    signs = np.random.default_rng(5).choice((-1.0, 1.0), (20_000, 40))
    t = differences.mean(1) / np.sqrt((differences**2).mean(1))
    null = np.abs(signs @ (differences / np.sqrt((differences**2).mean(1))[:, None]).T) / 40
    order = np.argsort(-np.abs(t))
    expected, least = np.empty(5), 0.0
    for place, row in enumerate(order):
        worst = null[:, order[place:]].max(axis=1)
        least = max(least, float((worst >= abs(t[row])).mean()))
        expected[row] = least
    np.testing.assert_allclose(corrected_p_values(differences, seed=9), expected, atol=0.015)


def test_the_correction_is_free_for_copies_and_weaker_than_bonferroni() -> None:
    (row,) = random_differences(0.11)
    alone = corrected_p_values(row[None], seed=0)[0]
    copies = corrected_p_values(np.stack([row] * 6), seed=0)
    np.testing.assert_allclose(copies, alone, atol=1e-12)
    others = np.concatenate([row[None], random_differences(0.0, rows=5, seed=7)])
    assert alone < corrected_p_values(others, seed=0)[0] < 6 * alone + 0.01


def test_noise_is_rarely_significant() -> None:
    false_positives = sum(
        corrected_p_values(
            random_differences(0.0, rows=4, seed=seed), seed=seed, sign_changes=400
        ).min()
        < 0.05
        for seed in range(150)
    )
    # 7.5 are expected; 16 and more happen once in 300 such tests.
    assert false_positives < 16


def test_comparisons_count_queries_and_give_verdicts() -> None:
    rising = np.array([0.5, 0.0, 0.2, 0.3, 0.1, 0.4, 0.2, 0.3, -0.1, 0.2])
    flat = np.zeros(10)
    better, same, worse = compare(np.stack([rising, flat, -rising]), seed=0)
    assert (better.wins, better.ties, better.losses) == (8, 1, 1)
    assert (worse.wins, worse.ties, worse.losses) == (1, 1, 8)
    assert better.difference == pytest.approx(0.21)
    assert better.low > 0
    assert worse.high == pytest.approx(-better.low, abs=0.03)
    assert (better.verdict, same.verdict, worse.verdict) == (1, 0, -1)
    assert (same.p, same.low, same.high) == (1.0, 0.0, 0.0)
    assert compare(np.empty((0, 10)), seed=0) == []


def test_the_bootstrap_interval_is_close_to_the_normal_one_for_many_queries() -> None:
    (values,) = random_differences(0.2, queries=400)
    (low,), (high,) = confidence_intervals(values[None], seed=0)
    spread = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - spread, abs=0.004)
    assert high == pytest.approx(values.mean() + spread, abs=0.004)
    one = np.array([[0.7]])
    assert confidence_intervals(one, seed=0) == (0.7, 0.7)


def test_sign_changes_of_many_queries_are_drawn_in_parts() -> None:
    (row,) = random_differences(0.005, queries=30_000)
    theirs = stats.ttest_1samp(row, 0.0).pvalue
    assert corrected_p_values(row[None], seed=0, sign_changes=2_000)[0] == pytest.approx(
        theirs, abs=0.02
    )


def test_standard_error_and_queries_needed_follow_their_formulas() -> None:
    values = [0.1, 0.3, -0.2, 0.4]
    assert standard_error(values) == pytest.approx(stats.sem(values))
    assert standard_error([0.5]) == math.inf
    spread = float(np.std(values, ddof=1))
    assert queries_needed(values) == math.ceil((2.8 * spread / 0.15) ** 2)
    assert queries_needed([0.1, -0.1]) is None
    assert queries_needed([0.1]) is None

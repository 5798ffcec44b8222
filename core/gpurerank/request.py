"""One request: what was asked, checked; the pairs it needs; the way back from their scores."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from gpurerank.chunking import Fit, max_passage_scores
from gpurerank.errors import InputError, ScoringError
from gpurerank.ranking import check_limits, logit_of

Item = TypeVar("Item")


def check_request(
    query: str, passages: Iterable[str], top_k: int | None, threshold: float | None
) -> list[str]:
    """Checks a request and reads its passages, once.

    Returns:
        The passages as a list.

    Raises:
        InputError: The query is blank, a passage is not a string, or a limit is out of range.
    """
    check_query(query)
    check_limits(top_k, threshold)
    return check_texts(passages, "passage")


def check_query(query: str) -> None:
    """Checks a query.

    Raises:
        InputError: It is not a string, or blank.
    """
    if not isinstance(query, str):
        raise InputError(f"the query is {type(query).__name__}, not a string")
    if not query.strip():
        raise InputError("the query is blank; there is nothing to rank for")


def check_texts(texts: Iterable[str], role: str) -> list[str]:
    """Reads texts once and checks each.

    Returns:
        The texts as a list.

    Raises:
        InputError: One is not a string, or there is no list of them.
    """
    checked = read_items(texts, f"the {role}s are", "a list of strings")
    for index, text in enumerate(checked):
        if not isinstance(text, str):
            raise InputError(f"{role} {index} is {type(text).__name__}, not a string")
    return checked


def check_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Reads pairs once and checks each, before any work is done.

    Returns:
        The pairs as a list of tuples.

    Raises:
        InputError: One is not two strings, or there is no list of them.
    """
    checked = []
    for index, pair in enumerate(read_items(pairs, "pairs is", "a list of (query, passage)")):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"pair {index} is {type(pair).__name__}, not (query, passage)")
        for role, text in zip(("query", "passage"), pair, strict=True):
            if not isinstance(text, str):
                raise InputError(
                    f"the {role} of pair {index} is {type(text).__name__}, not a string"
                )
        checked.append((pair[0], pair[1]))
    return checked


def read_items(items: Iterable[Item], subject: str, expected: str) -> list[Item]:
    """Reads an iterable once, so that a generator, a filter or a zip serves like a list.

    Every public method reads its input this way; a plugin of your own can too.

    Args:
        items: What the caller passed.
        subject: How an error begins, with its verb, such as "the passages are".
        expected: What an error asks for, such as "a list of strings".

    Raises:
        InputError: It is a single text, a mapping, an asynchronous iterator or not iterable.
    """
    if isinstance(items, str):
        raise InputError(f"{subject} one string; give {expected}")
    if isinstance(items, bytes | bytearray | Mapping) or not isinstance(items, Iterable):
        kind = type(items).__name__
        if isinstance(items, AsyncIterable):
            raise InputError(
                f"{subject} an asynchronous iterator ({kind}); collect it first, with"
                f" [item async for item in ...], and give {expected}"
            )
        raise InputError(f"{subject} of type {kind}; give {expected}")
    return list(items)


def check_scores(scores: Sequence[float], wanted: int) -> None:
    """Checks what a scorer returned.

    Raises:
        ScoringError: There is not one score for each pair.
        NotFiniteError: A score is NaN or outside [0, 1].
    """
    if len(scores) != wanted:
        raise ScoringError(f"the scorer gave {len(scores)} scores for {wanted} pairs")
    for score in scores:
        logit_of(score)


class Plan:
    """The distinct pairs that a query and its passages need.

    Attributes:
        passages: The caller's, input order.
        fits: How each is shown to the model.
        pairs: What a scorer is given; blank windows are not.
    """

    def __init__(self, query: str, passages: list[str], fits: list[Fit]) -> None:
        self.passages = passages
        self.fits = fits
        self._windows: list[tuple[int, tuple[int, int], int | None]] = []
        known: dict[tuple[str, str], int] = {}
        for owner, (passage, fit) in enumerate(zip(passages, fits, strict=True)):
            for span in fit.spans:
                text = passage[slice(*span)]
                pair = (query[: fit.query_stop], text)
                place = known.setdefault(pair, len(known)) if text.strip() else None
                self._windows.append((owner, span, place))
        self.pairs = list(known)

    def total(self, lengths: Sequence[int]) -> int:
        """Sums a number of each pair over all windows; a repeated passage counts each time."""
        return sum(lengths[place] for *_, place in self._windows if place is not None)

    def best(self, scores: Sequence[float]) -> tuple[list[float], list[tuple[int, int] | None]]:
        """Score and span of each passage's best window; a blank passage scores 0 and has no span.

        Raises:
            ScoringError: There is not one score for each pair.
            NotFiniteError: A score is NaN or outside [0, 1].
        """
        check_scores(scores, len(self.pairs))
        # float64: distinct scores near 1 must stay distinct.
        flat = np.array([0.0 if place is None else scores[place] for *_, place in self._windows])
        owners = np.array([owner for owner, *_ in self._windows])
        best, windows = max_passage_scores(flat, owners, len(self.passages))
        spans = [
            None if place is None else span
            for _, span, place in (self._windows[window] for window in windows)
        ]
        return best.tolist(), spans


class AskedPairs:
    """Pairs of any queries, gathered by query.

    Raises:
        InputError: A pair is not two strings, or a query is blank.

    Attributes:
        passages: Of each query, in the order that its pairs came.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._rows: dict[str, list[int]] = {}
        self.passages: dict[str, list[str]] = {}
        for row, (query, passage) in enumerate(check_pairs(pairs)):
            check_query(query)
            self._rows.setdefault(query, []).append(row)
            self.passages.setdefault(query, []).append(passage)

    def planned(self, fits: dict[str, list[Fit]]) -> PairsPlan:
        """What a scorer is given, by how each query's passages are shown to the model."""
        plans = [Plan(query, some, fits[query]) for query, some in self.passages.items()]
        return PairsPlan(plans, list(self._rows.values()))


class PairsPlan:
    """The plans of several queries, and the way back from their scores.

    Attributes:
        pairs: What a scorer is given.
    """

    def __init__(self, plans: list[Plan], rows: list[list[int]]) -> None:
        self._plans = plans
        self._rows = rows
        self.pairs = [pair for plan in plans for pair in plan.pairs]

    def total(self, lengths: Sequence[int]) -> int:
        """Sums a number of each pair over all windows; a repeated passage counts each time."""
        total = start = 0
        for plan in self._plans:
            total += plan.total(lengths[start : start + len(plan.pairs)])
            start += len(plan.pairs)
        return total

    def best(self, scores: Sequence[float]) -> list[float]:
        """The score of each pair that was asked for, in its order.

        Raises:
            ScoringError: There is not one score for each pair.
            NotFiniteError: A score is NaN or outside [0, 1].
        """
        check_scores(scores, len(self.pairs))
        found = [0.0] * sum(map(len, self._rows))
        start = 0
        for plan, rows in zip(self._plans, self._rows, strict=True):
            best, _ = plan.best(scores[start : start + len(plan.pairs)])
            start += len(plan.pairs)
            for row, score in zip(rows, best, strict=True):
                found[row] = score
        return found

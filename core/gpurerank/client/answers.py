"""Scores and vectors out of answers, in the shapes that servers give them.

A list, or an object with ``results`` or ``data``; in it, by ``index``, ``relevance_score`` or
``score``, or ``embedding`` as numbers or base64. Nothing is taken by its place that has an index.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpurerank.errors import NotFiniteError, RemoteError
from gpurerank.ranking import sigmoid
from gpurerank.types import FloatArray

# What a float32 sigmoid or a cosine may lie outside [0, 1] by rounding.
_ROUNDING = 1e-6
# No model's logit comes near; JSON has whole numbers that no float holds.
_LARGEST = 1e30
_LOGITS = (
    "where the server gives logits, ask RemoteScorer(base_url, logits=True) and rank with"
    " Reranker.from_scorer; otherwise have it give probabilities"
)


def scores_of(answer: Any, count: int, *, logits: bool, where: str) -> list[float]:
    """The scores of an answer, in [0, 1], in the order of what was sent.

    Args:
        answer: From JSON.
        count: Documents that were sent.
        logits: Whether the answer has logits, whose sigmoid is taken here, in float64.
        where: The address that answered.

    Raises:
        NotFiniteError: A score is NaN or infinite.
        RemoteError: A document has no score or two, or a score is none.
    """
    rows = _by_index(_rows(answer, where), count, where)
    return [_score(row, index, logits=logits, where=where) for index, row in enumerate(rows)]


def vectors_of(answer: Any, count: int, *, where: str) -> FloatArray:
    """The vectors of an answer, in the order of what was sent; shape (texts, dim), float32.

    Raises:
        NotFiniteError: A vector has NaN or infinity.
        RemoteError: A text has no vector or two, or vectors differ in length.
    """
    listed = _vectors(answer, count, where)
    try:
        with np.errstate(over="ignore"):
            vectors = np.array([_numbers(vector) for vector in listed], dtype=np.float32)
    except (TypeError, ValueError):
        raise RemoteError(f"{where} answered vectors that are none, or differ in length") from None
    if vectors.ndim != 2 or vectors.shape[0] != count or vectors.shape[1] == 0:
        raise RemoteError(
            f"{where} answered vectors of shape {vectors.shape} for {count} texts; is it an"
            " embedding model?"
        )
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise NotFiniteError(f"{where} answered NaN or infinity in the vector of text {wrong[0]}")
    return vectors


def _rows(answer: Any, where: str) -> list[Any]:
    found = answer
    if isinstance(answer, Mapping):
        found = answer.get("results", answer.get("data"))
    if not isinstance(found, list):
        # Only what looks like a name: a text may stand as a key.
        keys = [key for key in answer if key.isidentifier()] if isinstance(answer, Mapping) else []
        named = f" with {', '.join(sorted(keys)[:8])}" if keys else ""
        raise RemoteError(
            f"{where} answered {type(answer).__name__}{named} and no list of results; does the"
            " server speak this shape? name the right one with api="
        )
    return found


def _by_index(rows: list[Any], count: int, where: str) -> list[Mapping[str, Any]]:
    """Each document's row, by the index that the row itself has."""
    found: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        index = row.get("index") if isinstance(row, Mapping) else None
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            shown = index if isinstance(index, int) else type(index).__name__
            raise RemoteError(f"{where} answered the index {shown}, with {count} texts sent")
        if index in found:
            raise RemoteError(f"{where} answered text {index} of {count} twice")
        found[index] = row
    if len(found) < count:
        missing = next(index for index in range(count) if index not in found)
        raise RemoteError(
            f"{where} answered {len(found)} of {count} texts; text {missing} is missing: the"
            " server must answer all of them, whatever limit it sets"
        )
    return [found[index] for index in range(count)]


def _score(row: Mapping[str, Any], index: int, *, logits: bool, where: str) -> float:
    given = row.get("relevance_score", row.get("score"))
    if given is None:
        # Some servers write NaN so, which JSON has not.
        raise NotFiniteError(f"{where} answered no score for text {index}")
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise RemoteError(f"{where} answered {type(given).__name__}, no score, for text {index}")
    if not abs(given) < _LARGEST:
        raise NotFiniteError(f"{where} answered NaN, infinity or as good as that for text {index}")
    if logits:
        return sigmoid(max(-1e4, min(given, 1e4)))
    if not -_ROUNDING <= given <= 1.0 + _ROUNDING:
        raise RemoteError(
            f"{where} answered {given:.6g} for text {index}; a score lies in [0, 1]: {_LOGITS}"
        )
    return float(min(max(given, 0.0), 1.0))


def _vectors(answer: Any, count: int, where: str) -> list[Any]:
    if isinstance(answer, Mapping) and "embeddings" in answer:
        given = answer["embeddings"]
        answer = given.get("float") if isinstance(given, Mapping) else given
    rows = _rows(answer, where)
    if rows and isinstance(rows[0], Mapping):
        return [row.get("embedding") for row in _by_index(rows, count, where)]
    return rows


def _numbers(vector: Any) -> Any:
    if isinstance(vector, str):
        return np.frombuffer(base64.b64decode(vector, validate=True), dtype="<f4")
    if not isinstance(vector, list):
        raise TypeError("a vector is a list or base64")
    return vector

"""Validates responses and reads scores and vectors out of them, whichever provider sent them.

A response is a list, or an object with ``results`` or ``data``; its rows have ``index`` and
``relevance_score``, ``score``, or ``embedding`` as numbers or base64. A row that has an index is
never placed by its position.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpurerank.errors import NotFiniteError, RemoteError
from gpurerank.ranking import sigmoid
from gpurerank.types import FloatArray

# Rounding may take a float32 sigmoid this far outside [0, 1].
_ROUNDING = 1e-6
# Larger than any model's logit; JSON integers may be too large for a float.
_MAX_LOGIT = 1e30
_LOGITS_ADVICE = (
    "if the server returns logits, use RemoteScorer(base_url, logits=True) with"
    " Reranker.from_scorer; otherwise configure it to return probabilities"
)


def read_scores(response: Any, count: int, *, logits: bool, url: str) -> list[float]:
    """Reads the scores of a response, in [0, 1], in the order of the documents sent.

    Args:
        response: Parsed JSON.
        count: Documents that were sent.
        logits: Whether the response holds logits, whose sigmoid is taken here in float64.
        url: The address that answered, for messages.

    Raises:
        NotFiniteError: A score is NaN or infinite.
        RemoteError: A document has no score or two, or a score is no number in range.
    """
    rows = _rows_by_index(_rows(response, url), count, url)
    return [_score(row, index, logits=logits, url=url) for index, row in enumerate(rows)]


def read_vectors(response: Any, count: int, *, url: str) -> FloatArray:
    """Reads the vectors of a response, in the order of the texts sent.

    Args:
        response: Parsed JSON.
        count: Texts that were sent.
        url: The address that answered, for messages.

    Returns:
        Shape (texts, dim), float32.

    Raises:
        NotFiniteError: A vector has NaN or infinity.
        RemoteError: A text has no vector or two, or vectors differ in length.
    """
    rows = _vector_rows(response, count, url)
    try:
        with np.errstate(over="ignore"):
            vectors = np.array([_numbers(vector) for vector in rows], dtype=np.float32)
    except (TypeError, ValueError):
        raise RemoteError(
            f"{url} answered vectors that are not numbers, or differ in length"
        ) from None
    if vectors.ndim != 2 or vectors.shape[0] != count or vectors.shape[1] == 0:
        raise RemoteError(
            f"{url} answered vectors of shape {vectors.shape} for {count} texts; is it an"
            " embedding model?"
        )
    not_finite = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(not_finite):
        raise NotFiniteError(
            f"{url} answered NaN or infinity in the vector of text {not_finite[0]}"
        )
    return vectors


def _rows(response: Any, url: str) -> list[Any]:
    rows = response
    if isinstance(response, Mapping):
        rows = response.get("results", response.get("data"))
    if not isinstance(rows, list):
        # Only keys that look like a field name are shown: a text may be a key.
        keys = sorted(filter(str.isidentifier, response)) if isinstance(response, Mapping) else []
        fields = f" with {', '.join(keys[:8])}" if keys else ""
        raise RemoteError(
            f"{url} answered {type(response).__name__}{fields} and no list of results; if the"
            " server speaks another API, name it with api="
        )
    return rows


def _rows_by_index(rows: list[Any], count: int, url: str) -> list[Mapping[str, Any]]:
    """The row of each text, by the index that the row has."""
    by_index: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        index = row.get("index") if isinstance(row, Mapping) else None
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            shown = index if isinstance(index, int) else type(index).__name__
            raise RemoteError(f"{url} answered the index {shown}, with {count} texts sent")
        if index in by_index:
            raise RemoteError(f"{url} answered text {index} of {count} twice")
        by_index[index] = row
    if len(by_index) < count:
        missing = next(index for index in range(count) if index not in by_index)
        raise RemoteError(
            f"{url} answered {len(by_index)} of {count} texts; text {missing} is missing: the"
            " server must return all of them, whatever limit it sets"
        )
    return [by_index[index] for index in range(count)]


def _score(row: Mapping[str, Any], index: int, *, logits: bool, url: str) -> float:
    value = row.get("relevance_score", row.get("score"))
    if value is None:
        # Some servers write NaN as null, since JSON has no NaN.
        raise NotFiniteError(f"{url} answered no score for text {index}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RemoteError(f"{url} answered {type(value).__name__}, not a score, for text {index}")
    if not abs(value) < _MAX_LOGIT:
        raise NotFiniteError(f"{url} answered NaN or infinity for text {index}")
    if logits:
        return sigmoid(max(-1e4, min(value, 1e4)))
    if not -_ROUNDING <= value <= 1.0 + _ROUNDING:
        raise RemoteError(
            f"{url} answered {value:.6g} for text {index}, outside [0, 1]: {_LOGITS_ADVICE}"
        )
    return float(min(max(value, 0.0), 1.0))


def _vector_rows(response: Any, count: int, url: str) -> list[Any]:
    if isinstance(response, Mapping) and "embeddings" in response:
        embeddings = response["embeddings"]
        response = embeddings.get("float") if isinstance(embeddings, Mapping) else embeddings
    rows = _rows(response, url)
    if rows and isinstance(rows[0], Mapping):
        return [row.get("embedding") for row in _rows_by_index(rows, count, url)]
    return rows


def _numbers(vector: Any) -> Any:
    if isinstance(vector, str):
        return np.frombuffer(base64.b64decode(vector, validate=True), dtype="<f4")
    if not isinstance(vector, list):
        raise TypeError("a vector must be a list or base64")
    return vector

"""Documents as they leave the compressor: copies with their score and its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from gpurerank import RankedPassage

PROVENANCE = "gpurerank"
SCORE = "relevance_score"


class RankedMetadata(dict[str, Any]):
    """The metadata of a ranked document: equal to any other metadata of the same document.

    The entries "relevance_score" and "gpurerank" belong to one query, so they take no part in
    ``==``. LangChain compares documents by their content, id and metadata: without this a
    retriever that merges the results of several queries, such as MultiQueryRetriever, would take
    the same document with two scores for two documents.
    """

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return _without_score(self) == _without_score(other)

    # ``dict`` brings a ``!=`` that does not ask ``__eq__``.
    def __ne__(self, other: object) -> bool:
        return not self == other


def ranked_metadata(
    metadata: dict[str, Any], passage: RankedPassage, span: list[int] | None
) -> RankedMetadata:
    """The metadata of a ranked document.

    Args:
        metadata: Of the document before, already copied.
        passage: The document's place in the ranking.
        span: Characters of the best window in the document's own text.
    """
    provenance = {**passage.provenance(), "span": span}
    # Where the order was kept after a failure, a score from an earlier stage must not pass for
    # the reranker's.
    earlier = metadata.pop(SCORE, None)
    if passage.previous_score is None:
        provenance["previous_score"] = as_score(earlier)
    if passage.score is not None:
        metadata[SCORE] = passage.score
    return RankedMetadata(metadata, **{PROVENANCE: provenance})


def as_score(value: object) -> float | None:
    """A score from metadata; None where the value is no number."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def _without_score(metadata: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in metadata.items() if key not in (SCORE, PROVENANCE)}

"""The values and the seams that every other module speaks in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.integer[Any]]
# One row an item: numbers, or an array of its own for each.
Rows = NDArray[Any]


class Pair(NamedTuple):
    """A query and one passage to score against it."""

    query: str
    passage: str


class TextToken(NamedTuple):
    """A token of a text.

    Attributes:
        id: In the model's vocabulary.
        text: As the vocabulary has it.
        special: Whether the tokenizer added it, such as [CLS].
        start: First character in the text.
        stop: Character behind the last.
    """

    id: int
    text: str
    special: bool
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """One passage of a ranking, with where its place came from.

    Attributes:
        index: Position in the caller's list, from 0.
        passage: The caller's text, unchanged.
        score: Relevance. From a cross-encoder in [0, 1], the sigmoid of the logit; from a
            bi-encoder the cosine similarity in [-1, 1]. None only where ``error`` is set.
        logit: What the ranking is sorted by: the model's raw output, or the cosine similarity.
        rank: Place in this ranking, from 1.
        span: Characters [start, stop) of the passage's best window; the whole passage where it
            fitted. None where no model read it.
        truncated: Part of the passage or the query was not read: it was too long, or has a word
            that is too long for the model's tokenizer.
        model: Name of the model that scored it.
        previous_rank: Place before this ranking, from 1: the input order, or the first stage's.
        previous_score: The first stage's score, where there was one.
        error: Why the input order was kept; None for a real ranking.
    """

    index: int
    passage: str
    score: float | None
    logit: float | None
    rank: int
    span: tuple[int, int] | None
    truncated: bool
    model: str
    previous_rank: int
    previous_score: float | None = None
    error: str | None = None

    def at(self, rank: int) -> RankedPassage:
        """The same passage at another place."""
        # By position: ``dataclasses.replace`` takes ten times as long, for every passage there is.
        return RankedPassage(
            self.index,
            self.passage,
            self.score,
            self.logit,
            rank,
            self.span,
            self.truncated,
            self.model,
            self.previous_rank,
            self.previous_score,
            self.error,
        )

    def span_in(self, text: str) -> list[int] | None:
        """The best window counted in a text that the scored passage ends with or contains.

        For a plugin that scores a title or other metadata in front of a document's own text.

        Returns:
            Characters [start, stop) of ``text``; None where no model read the passage, where the
            passage does not contain the text, and where the best window lies outside of it.
        """
        if self.span is None:
            return None
        if text == self.passage:
            return list(self.span)
        # The passage may have lost the white space at its ends. The last place counts, because
        # what is put before a text may repeat it.
        stripped = text.strip()
        place = self.passage.rfind(stripped)
        if place < 0:
            return None
        shift = place - text.find(stripped)
        start, stop = (min(max(edge - shift, 0), len(text)) for edge in self.span)
        return [start, stop] if start < stop else None

    def to_dict(self) -> dict[str, Any]:
        """Every attribute as JSON-safe values; the span becomes a list."""
        # ``dataclasses.asdict`` copies every value deeply, which takes ten times as long.
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        values["span"] = None if self.span is None else list(self.span)
        return values

    def provenance(self) -> dict[str, Any]:
        """``to_dict`` without the passage: what a plugin writes into metadata."""
        values = self.to_dict()
        del values["passage"]
        return values


@runtime_checkable
class Secret(Protocol):
    """A text that hides itself when it is shown, such as pydantic's ``SecretStr``."""

    def get_secret_value(self) -> str:
        """The text."""
        ...


@runtime_checkable
class PairScorer(Protocol):
    """Scores pairs; one call may mix queries.

    The cross-encoder, the cache and the remote client each are or wrap one. A deadline, stage times
    and progress travel beside a call (see ``gpurerank.calls``), so that wrappers stay this small.
    """

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One score in [0, 1] for each pair, input order."""
        ...


@runtime_checkable
class AsyncPairScorer(PairScorer, Protocol):
    """A scorer that can also be awaited without holding a thread."""

    async def ascore_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """As ``score_pairs``; cancelling the task stops the work at its next batch."""
        ...


@runtime_checkable
class TextEmbedder(Protocol):
    """Embeds queries and passages into one space."""

    def embed_queries(self, queries: Sequence[str]) -> FloatArray:
        """Shape (queries, dim), float32."""
        ...

    def embed_passages(self, passages: Sequence[str]) -> FloatArray:
        """Shape (passages, dim), float32."""
        ...


@runtime_checkable
class CutOff(Protocol):
    """Decides how many of a ranking to keep."""

    def keep(self, ranked: Sequence[RankedPassage]) -> int:
        """How many passages to keep from the top, from 0 to all."""
        ...


@runtime_checkable
class Ranker(Protocol):
    """Ranks passages for a query: Reranker, BiEncoder, Cascade and Fusion all do."""

    @property
    def model_name(self) -> str:
        """What names this ranker in provenance and traces."""
        ...

    def rank(
        self,
        query: str,
        passages: Sequence[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """Best first."""
        ...

    async def arank(
        self,
        query: str,
        passages: Sequence[str],
        top_k: int | None = None,
        threshold: float | None = None,
        *,
        cut_off: CutOff | None = None,
    ) -> list[RankedPassage]:
        """As ``rank``, without blocking the event loop."""
        ...

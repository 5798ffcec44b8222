"""Negative mining: turns judged queries into training lists."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from gpurerank.collection import Collection
from gpurerank.cosine import unit_vectors
from gpurerank.lexical import LexicalIndex
from gpurerank.training.hyperparameters import MiningOptions
from gpurerank.training.training_lists import TrainingList
from gpurerank.types import FloatArray, IntArray, TextEmbedder

_LEXICAL_DEPTH = 20
# An answer string this short, such as "no", occurs by chance in unrelated passages.
_SHORTEST_ANSWER = 3


class NegativeMiner:
    """Draws training lists from one collection.

    Args:
        collection: Passages, queries and judgments.
        embedder: Bi-encoder that ranks the passages by cosine.
        options: Number and origin of the negatives.
        rng: Source of all random choices; the same seed gives the same lists.
    """

    def __init__(
        self,
        collection: Collection,
        embedder: TextEmbedder,
        options: MiningOptions,
        rng: np.random.Generator,
    ) -> None:
        self._collection = collection
        self._options = options
        self._rng = rng
        self._embedder = embedder
        self._row_of = {document_id: row for row, document_id in enumerate(collection.documents)}
        self._documents = list(collection.documents.values())
        self._passages = [document.passage for document in self._documents]
        self._lowercased = [passage.lower() for passage in self._passages]
        # (passages, dim): unit length, so that a dot product is the cosine that serving computes.
        self._vectors = unit_vectors(embedder.embed_passages(self._passages))

    def with_options(self, options: MiningOptions) -> NegativeMiner:
        """A miner over the same embedded passages with other options."""
        miner = copy.copy(self)
        miner._options = options
        return miner

    def mine(self, query_ids: list[str]) -> Iterator[TrainingList]:
        """Yields a list for each query that has something to teach; see ``MiningOptions``."""
        if not query_ids:
            return
        queries = [self._collection.queries[i].text for i in query_ids]
        vectors = unit_vectors(self._embedder.embed_queries(queries))  # (queries, dim)
        by_words = LexicalIndex(self._passages).search(queries, depth=_LEXICAL_DEPTH)
        for query_id, vector, (rows, _) in zip(query_ids, vectors, by_words, strict=True):
            training_list = self._mine_query(query_id, self._vectors @ vector, rows.tolist())
            if training_list is not None:
                yield training_list

    def _mine_query(
        self, query_id: str, cosines: FloatArray, lexical_rows: list[int]
    ) -> TrainingList | None:
        """A list of one query; ``cosines`` has shape (passages,)."""
        options, rng = self._options, self._rng
        # Stable: equal cosines keep the collection's order, so a seed repeats its lists.
        order = np.argsort(-cosines, kind="stable")
        relevant = [self._row_of[i] for i in self._collection.relevant(query_id)]
        positives = [int(row) for row in rng.permutation(relevant)[: options.positives]]
        keep_negatives = self._negative_filter(query_id, set(relevant), cosines)
        ranked = keep_negatives(order[: options.medium_depth])
        if self._is_dropped(cosines, order, positives, ranked):
            return None
        # Eight times as many as needed, because some are relevant or too similar.
        random_rows = rng.integers(0, len(self._passages), 8 * options.random)
        pools = (
            (options.hard, ranked[: options.hard_depth]),
            (options.lexical, keep_negatives(lexical_rows)),
            (options.medium, ranked[options.hard_depth :]),
            (options.random, keep_negatives(random_rows)),
        )
        negatives = draw_rows(pools, rng)
        if not negatives:
            return None
        rows = positives + negatives
        without_titles = rng.random() < options.untitled_share
        return TrainingList(
            self._collection.queries[query_id].text,
            tuple(self._documents[r].text if without_titles else self._passages[r] for r in rows),
            tuple([1.0] * len(positives) + [0.0] * len(negatives)),
            tuple(float(cosines[row]) for row in rows),
            tuple(float(cosines[row]) * options.teacher_scale for row in rows),
        )

    def _is_dropped(
        self, cosines: FloatArray, order: IntArray, positives: list[int], ranked: list[int]
    ) -> bool:
        """Whether the query is too odd or too easy to learn from; see ``MiningOptions``."""
        options = self._options
        if options.positive_depth is not None:
            positives_above = int(np.flatnonzero(order == positives[0])[0])
            if positives_above > options.positive_depth:
                return True
        # -1 is the lowest cosine: without any negative the query counts as easy.
        best_negative = max((float(cosines[row]) for row in ranked[:1]), default=-1.0)
        is_easy = float(cosines[positives[0]]) - best_negative > options.easy_margin
        return bool(is_easy and self._rng.random() >= options.easy_share)

    def _negative_filter(
        self, query_id: str, relevant: set[int], cosines: FloatArray
    ) -> Callable[[Iterable[int]], list[int]]:
        """A function that keeps those of the given passage rows that may serve as negatives."""
        query = self._collection.queries[query_id]
        grades = self._collection.judgements[query_id]
        judged_irrelevant = {self._row_of[i] for i, grade in grades.items() if grade <= 0}
        answers = [answer.lower() for answer in query.answers if len(answer) >= _SHORTEST_ANSWER]
        # The same text may stand under several ids, of which one is judged.
        positive_texts = {self._lowercased[row] for row in relevant}
        share = self._options.too_similar
        best_positive = max(float(cosines[row]) for row in relevant)
        limit = math.inf if share is None else best_positive * share

        def is_negative(row: int) -> bool:
            # A judgement is certain, however similar the passage is.
            if row in judged_irrelevant:
                return True
            if row in relevant or self._lowercased[row] in positive_texts:
                return False
            if answers:
                return not any(answer in self._lowercased[row] for answer in answers)
            return float(cosines[row]) <= limit

        return lambda rows: [int(row) for row in rows if is_negative(int(row))]


def unlabelled_lists(
    queries: list[str],
    passages: list[str],
    embedder: TextEmbedder,
    size: int,
    teacher_scale: float,
    rng: np.random.Generator,
) -> Iterator[TrainingList]:
    """Yields a list without labels for each query, from near to far passages.

    A quarter each comes from the ranks 1 to 5, 6 to 30, 31 to 500, and from all passages. The query
    itself is never among them. The bi-encoder is the only teacher, so its knowledge is kept.

    Args:
        queries: Queries; they may be among the passages.
        passages: Passages to draw from.
        embedder: Bi-encoder that ranks and teaches.
        size: Maximum passages per list.
        teacher_scale: Factor from cosine to the teacher's logit.
        rng: Source of all random choices.
    """
    query_vectors = unit_vectors(embedder.embed_queries(queries))  # (queries, dim)
    vectors = unit_vectors(embedder.embed_passages(passages))  # (passages, dim)
    quarter = size // 4
    for query, vector in zip(queries, query_vectors, strict=True):
        cosines = vectors @ vector
        order = np.argsort(-cosines, kind="stable")
        # One more than the deepest rank: the query itself may be the nearest passage.
        ranked = [int(row) for row in order[:501] if passages[row] != query]
        random_rows = [int(row) for row in rng.integers(0, len(passages), size)]
        pools = (
            (quarter, ranked[:5]),
            (quarter, ranked[5:30]),
            (quarter, ranked[30:]),
            (size - 3 * quarter, [row for row in random_rows if passages[row] != query]),
        )
        rows = draw_rows(pools, rng)
        similarities = tuple(float(cosines[row]) for row in rows)
        yield TrainingList(
            query,
            tuple(passages[row] for row in rows),
            (0.0,) * len(rows),
            similarities,
            tuple(similarity * teacher_scale for similarity in similarities),
        )


def draw_rows(pools: Iterable[tuple[int, list[int]]], rng: np.random.Generator) -> list[int]:
    """Draws up to ``count`` rows from each (count, rows) pool in turn; no row is drawn twice."""
    drawn: list[int] = []
    for count, pool in pools:
        remaining = [row for row in dict.fromkeys(pool) if row not in drawn]
        drawn.extend(remaining[i] for i in rng.permutation(len(remaining))[:count])
    return drawn

"""Mining: from judged queries to training lists with negatives worth learning from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gpurerank.collection import Collection
from gpurerank.cosine import unit_vectors
from gpurerank.errors import InputError
from gpurerank.lexical import LexicalIndex
from gpurerank.training.training_lists import TrainingList
from gpurerank.types import FloatArray, IntArray, TextEmbedder


@dataclass(frozen=True, slots=True, kw_only=True)
class Mining:
    """How many passages a labelled query gets beside its positives, and from where.

    Hard negatives alone teach a model to contradict the first stage, so easy ones are mixed in.

    Attributes:
        positives: Relevant passages of a list at most.
        hard: Negatives from the bi-encoder's best ``hard_depth``.
        hard_depth: See ``hard``.
        lexical: Negatives from BM25's best 20.
        middling: Negatives from the bi-encoder's places ``hard_depth`` to ``middling_depth``.
        middling_depth: See ``middling``.
        random: Negatives from anywhere.
        too_similar: A passage whose similarity to the query is over this share of the positive's
            is taken for an unjudged answer and is no negative. Where the query's answers are
            known, a passage that holds one is none, and this share is not asked. None trusts the
            judgements to be complete.
        untitled_share: Share of the lists whose passages are shown without their titles.
        easy_share: Share kept of those queries whose positive the bi-encoder puts first by more
            than ``easy_margin``: they teach little.
        easy_margin: Difference of cosines; see ``easy_share``.
        positive_depth: A query whose positive the bi-encoder puts below this place is left out:
            such questions mostly make no sense away from the passage they were written on.
        teacher_scale: The bi-encoder's logits as a teacher are its cosines times this.
    """

    positives: int = 1
    hard: int = 3
    hard_depth: int = 20
    lexical: int = 1
    middling: int = 2
    middling_depth: int = 200
    random: int = 1
    too_similar: float | None = 0.95
    untitled_share: float = 0.3
    easy_share: float = 1.0
    easy_margin: float = 0.15
    positive_depth: int | None = None
    teacher_scale: float = 15.0

    def check(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: A list would have no positive or no negative.
        """
        negatives = self.hard + self.lexical + self.middling + self.random
        if self.positives < 1 or negatives < 1:
            raise InputError(
                f"a list of {self.positives} positives and {negatives} negatives teaches nothing;"
                " ask for at least 1 of each"
            )


class Miner:
    """Draws training lists from one collection.

    Args:
        collection: Passages, queries and judgements.
        embedder: What says how similar two texts are.
        mining: How many negatives, and from where.
        rng: Decides every draw; the same seed gives the same lists.
    """

    def __init__(
        self,
        collection: Collection,
        embedder: TextEmbedder,
        mining: Mining,
        rng: np.random.Generator,
    ) -> None:
        self._collection = collection
        self._mining = mining
        self._rng = rng
        self._embedder = embedder
        self._row_of = {document_id: row for row, document_id in enumerate(collection.documents)}
        self._documents = list(collection.documents.values())
        self._passages = [document.passage for document in self._documents]
        self._lowered = [passage.lower() for passage in self._passages]
        self._vectors = unit_vectors(embedder.embed_passages(self._passages))

    def judging(self, mining: Mining) -> Miner:
        """The same passages, embedded once, drawn from in another way."""
        other = copy.copy(self)
        other._mining = mining
        return other

    def lists(self, query_ids: list[str]) -> Iterator[TrainingList]:
        """A list for each query that has something to teach; see ``Mining``."""
        if not query_ids:
            return
        queries = [self._collection.queries[i].text for i in query_ids]
        vectors = unit_vectors(self._embedder.embed_queries(queries))
        lexical = LexicalIndex(self._passages).search(queries, depth=20)
        for query_id, vector, (near, _) in zip(query_ids, vectors, lexical, strict=True):
            found = self._list(query_id, self._vectors @ vector, near.tolist())
            if found is not None:
                yield found

    def _list(self, query_id: str, cosines: FloatArray, lexical: list[int]) -> TrainingList | None:
        mining, rng = self._mining, self._rng
        order = np.argsort(-cosines, kind="stable")
        relevant = [self._row_of[i] for i in self._collection.relevant(query_id)]
        positives = [int(row) for row in rng.permutation(relevant)[: mining.positives]]
        usable = self._usable(query_id, set(relevant), cosines)
        ranked = usable(order[: mining.middling_depth])
        if self._left_out(cosines, order, positives, ranked):
            return None
        pools = (
            (mining.hard, ranked[: mining.hard_depth]),
            (mining.lexical, usable(lexical)),
            (mining.middling, ranked[mining.hard_depth :]),
            (mining.random, usable(rng.integers(0, len(self._passages), 8 * mining.random))),
        )
        negatives = draw(pools, rng)
        if not negatives:
            return None
        chosen = positives + negatives
        untitled = rng.random() < mining.untitled_share
        return TrainingList(
            self._collection.queries[query_id].text,
            tuple(self._documents[r].text if untitled else self._passages[r] for r in chosen),
            tuple([1.0] * len(positives) + [0.0] * len(negatives)),
            tuple(float(cosines[row]) for row in chosen),
            tuple(float(cosines[row]) * mining.teacher_scale for row in chosen),
        )

    def _left_out(
        self, cosines: FloatArray, order: IntArray, positives: list[int], ranked: list[int]
    ) -> bool:
        mining = self._mining
        if mining.positive_depth is not None:
            depth = int(np.flatnonzero(order == positives[0])[0])
            if depth > mining.positive_depth:
                return True
        best_negative = max((float(cosines[row]) for row in ranked[:1]), default=-1.0)
        easy = float(cosines[positives[0]]) - best_negative > mining.easy_margin
        return bool(easy and self._rng.random() >= mining.easy_share)

    def _usable(
        self, query_id: str, relevant: set[int], cosines: FloatArray
    ) -> Callable[[Iterable[int]], list[int]]:
        """What keeps, of rows of passages, those that may serve as negatives."""
        query = self._collection.queries[query_id]
        judged = self._collection.judgements[query_id]
        judged_off = {self._row_of[i] for i, grade in judged.items() if grade <= 0}
        answers = [answer.lower() for answer in query.answers if len(answer) > 2]
        positive_texts = {self._lowered[row] for row in relevant}
        share = self._mining.too_similar
        nearest = max(float(cosines[row]) for row in relevant)
        limit = math.inf if share is None else nearest * share

        def is_negative(row: int) -> bool:
            if row in judged_off:
                return True
            if row in relevant or self._lowered[row] in positive_texts:
                return False
            if answers:
                return not any(answer in self._lowered[row] for answer in answers)
            return float(cosines[row]) <= limit

        return lambda rows: [int(row) for row in rows if is_negative(int(row))]


def unlabelled_lists(
    queries: list[str],
    passages: list[str],
    embedder: TextEmbedder,
    per_list: int,
    teacher_scale: float,
    rng: np.random.Generator,
) -> Iterator[TrainingList]:
    """Lists without a label: for each query, passages from near to far, never the query itself.

    A quarter each comes from the nearest 5, to 30, to 500, and from anywhere. The bi-encoder is the
    only teacher: what it knows is kept this way.
    """
    query_vectors = unit_vectors(embedder.embed_queries(queries))
    vectors = unit_vectors(embedder.embed_passages(passages))
    quarter = per_list // 4
    for query, vector in zip(queries, query_vectors, strict=True):
        cosines = vectors @ vector
        order = np.argsort(-cosines, kind="stable")
        ranked = [int(row) for row in order[:501] if passages[row] != query]
        anywhere = [int(row) for row in rng.integers(0, len(passages), per_list)]
        pools = (
            (quarter, ranked[:5]),
            (quarter, ranked[5:30]),
            (quarter, ranked[30:]),
            (per_list - 3 * quarter, [row for row in anywhere if passages[row] != query]),
        )
        chosen = draw(pools, rng)
        similarities = tuple(float(cosines[row]) for row in chosen)
        yield TrainingList(
            query,
            tuple(passages[row] for row in chosen),
            (0.0,) * len(chosen),
            similarities,
            tuple(similarity * teacher_scale for similarity in similarities),
        )


def draw(pools: Iterable[tuple[int, list[int]]], rng: np.random.Generator) -> list[int]:
    """So many rows from each pool, none twice."""
    chosen: list[int] = []
    for count, pool in pools:
        fresh = [row for row in dict.fromkeys(pool) if row not in chosen]
        picks = rng.permutation(len(fresh))[:count]
        chosen.extend(fresh[pick] for pick in picks)
    return chosen

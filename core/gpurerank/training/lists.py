"""Training lists: a query with passages to order, the bi-encoder's similarities and the label."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import bm25s
import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from gpurerank.collection import Collection

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TrainingList:
    """One query and the passages to order.

    ``similarities`` are the bi-encoder's cosines, one a passage; ``positive`` is the index of the
    relevant passage, or None where only the similarities teach.
    """

    query: str
    passages: tuple[str, ...]
    similarities: tuple[float, ...]
    positive: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Negatives:
    """How many negatives a labelled query gets, and from where.

    Only hard negatives teach a model to contradict the bi-encoder, so easy ones are mixed in.
    """

    hard: int = 3
    hard_depth: int = 20
    lexical: int = 1
    middling: int = 2
    middling_depth: int = 200
    random: int = 1
    untitled_share: float = 0.3
    positive_depth: int | None = None


def labelled_lists(
    collection: Collection,
    encoder: SentenceTransformer,
    query_ids: list[str],
    negatives: Negatives,
    rng: np.random.Generator,
) -> Iterator[TrainingList]:
    """Mines a list for each query with one of its relevant documents first.

    A passage that holds one of the query's known answers is never taken as a negative, and a query
    whose relevant document the bi-encoder ranks below ``positive_depth`` is left out: such
    questions mostly make no sense away from the passage they were written on.
    """
    if not query_ids:
        return
    ids = list(collection.documents)
    row_of = {document_id: row for row, document_id in enumerate(ids)}
    documents = [collection.documents[i] for i in ids]
    passages = [document.passage for document in documents]
    lowered = [passage.lower() for passage in passages]
    vectors = embed(encoder, passages)
    queries = [collection.queries[i] for i in query_ids]
    query_vectors = embed(encoder, [query.text for query in queries])
    lexical = _lexical_neighbours(passages, [query.text for query in queries], depth=20)
    for query_id, query, vector, near in zip(
        query_ids, queries, query_vectors, lexical, strict=True
    ):
        cosines = vectors @ vector
        relevant = {row_of[i] for i in collection.relevant(query_id)}
        answers = [answer.lower() for answer in query.answers if len(answer) > 2]
        positive = int(rng.choice(sorted(relevant)))
        order = np.argsort(-cosines, kind="stable")
        depth = int(np.flatnonzero(order == positive)[0])
        if negatives.positive_depth is not None and depth > negatives.positive_depth:
            continue

        usable = _usable(relevant, answers, lowered)
        ranked = usable(order[: negatives.middling_depth])
        pools = (
            (negatives.hard, ranked[: negatives.hard_depth]),
            (negatives.lexical, usable(near)),
            (negatives.middling, ranked[negatives.hard_depth :]),
            (negatives.random, usable(rng.integers(0, len(ids), 8 * negatives.random))),
        )
        chosen = [positive, *_draw(pools, rng)]
        untitled = rng.random() < negatives.untitled_share
        yield TrainingList(
            query.text,
            tuple(documents[row].text if untitled else passages[row] for row in chosen),
            tuple(float(cosines[row]) for row in chosen),
            positive=0,
        )


def unlabelled_lists(
    queries: list[str],
    passages: list[str],
    encoder: SentenceTransformer,
    per_list: int,
    rng: np.random.Generator,
) -> Iterator[TrainingList]:
    """Lists without a label: for each query, passages from near to far, never the query itself.

    A quarter each comes from the nearest 5, to 30, to 500, and from anywhere. The bi-encoder's
    similarities are the only teacher: what it knows is kept this way.
    """
    query_vectors, vectors = embed(encoder, queries), embed(encoder, passages)
    for query, vector in zip(queries, query_vectors, strict=True):
        cosines = vectors @ vector
        order = np.argsort(-cosines, kind="stable")
        ranked = [int(row) for row in order[:501] if passages[row] != query]
        anywhere = [int(row) for row in rng.integers(0, len(passages), per_list)]
        quarter = per_list // 4
        pools = (
            (quarter, ranked[:5]),
            (quarter, ranked[5:30]),
            (quarter, ranked[30:]),
            (per_list - 3 * quarter, [row for row in anywhere if passages[row] != query]),
        )
        chosen = _draw(pools, rng)
        yield TrainingList(
            query,
            tuple(passages[row] for row in chosen),
            tuple(float(cosines[row]) for row in chosen),
            positive=None,
        )


def embed(encoder: SentenceTransformer, texts: list[str]) -> FloatArray:
    """Unit vectors, shape (texts, dim), float32."""
    return np.asarray(
        encoder.encode(
            texts,
            batch_size=64,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=True,
        ),
        dtype=np.float32,
    )


def write_lists(path: Path, lists: Iterable[TrainingList]) -> int:
    """Writes lists as JSON lines, whole or not at all; returns how many."""
    partial = path.with_suffix(".partial")
    count = 0
    with partial.open("w", encoding="utf-8") as out:
        for count, training_list in enumerate(lists, 1):  # noqa: B007
            out.write(json.dumps(asdict(training_list)) + "\n")
    partial.replace(path)
    return count


def read_lists(path: Path) -> Iterator[TrainingList]:
    """Reads what ``write_lists`` wrote."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield TrainingList(
                row["query"], tuple(row["passages"]), tuple(row["similarities"]), row["positive"]
            )


def _usable(
    relevant: set[int], answers: list[str], lowered: list[str]
) -> Callable[[Iterable[int]], list[int]]:
    def keep(rows: Iterable[int]) -> list[int]:
        return [
            int(row)
            for row in rows
            if row not in relevant and not any(answer in lowered[row] for answer in answers)
        ]

    return keep


def _draw(pools: Iterable[tuple[int, list[int]]], rng: np.random.Generator) -> list[int]:
    chosen: list[int] = []
    for count, pool in pools:
        fresh = [row for row in dict.fromkeys(pool) if row not in chosen]
        picks = rng.permutation(len(fresh))[:count]
        chosen.extend(fresh[pick] for pick in picks)
    return chosen


def _lexical_neighbours(passages: list[str], queries: list[str], depth: int) -> Iterator[list[int]]:
    index = bm25s.BM25()
    index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(queries, stopwords="en", show_progress=False)
    rows, _ = index.retrieve(tokens, k=min(depth, len(passages)), show_progress=False)
    for row in rows:
        yield [int(r) for r in row]

"""First stages: which documents of a collection a reranker is given, best first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpurerank.bi_encoder import BiEncoder
from gpurerank.collection import Collection
from gpurerank.errors import DataError
from gpurerank.faults import Fault, FaultCounter, told
from gpurerank.lexical import LexicalIndex

Found = dict[str, list[str]]

QUERIES_PER_STEP = 64


def bm25(
    collection: Collection, query_ids: Sequence[str], depth: int, language: str = "english"
) -> Found:
    """The best documents by BM25; those that share no word with the query are not found.

    Raises:
        DataError: No document has a word.
        InputError: The language is not known; see ``LexicalIndex``.
    """
    ids = list(collection.documents)
    passages = [document.passage for document in collection.documents.values()]
    index = LexicalIndex(passages, language)
    if not index:
        raise DataError(f"{collection.name}: no document has a word that BM25 could look up")
    found = index.search([collection.queries[i].text for i in query_ids], depth)
    return {
        query_id: [ids[row] for row in rows.tolist()]
        for query_id, (rows, _) in zip(query_ids, found, strict=True)
    }


def nearest(
    collection: Collection, query_ids: Sequence[str], depth: int, encoder: BiEncoder
) -> Found:
    """The documents nearest to each query by cosine, found exactly; every document is embedded."""
    ids = [i for i, document in collection.documents.items() if document.passage.strip()]
    passages = encoder.embed_passages([collection.documents[i].passage for i in ids])
    queries = encoder.embed_queries([collection.queries[i].text for i in query_ids])
    passages = passages / np.maximum(np.linalg.norm(passages, axis=1, keepdims=True), 1e-12)
    found: Found = {}
    for start in range(0, len(query_ids), QUERIES_PER_STEP):
        cosines = queries[start : start + QUERIES_PER_STEP] @ passages.T  # (queries, documents)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :depth]
        for query_id, rows in zip(query_ids[start:], order.tolist(), strict=False):
            found[query_id] = [ids[row] for row in rows]
    return found


def read_run(
    path: Path, collection: Collection, query_ids: Sequence[str]
) -> tuple[Found, tuple[Fault, ...]]:
    """Reads a TREC run: "query Q0 document rank score tag" a line, sorted here by score.

    Queries that are not asked for are passed over; each that is has a place, if an empty one.

    Raises:
        DataError: The file cannot be read, or holds nothing for any query that is asked for.
    """
    scores: dict[str, dict[str, float]] = {query_id: {} for query_id in query_ids}
    faults = FaultCounter()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        where = f"{path.name}:{number}"
        try:
            query_id, _, document_id, _, score, _ = line.split()
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            if line.strip():
                wants = "wants six columns, the fifth a number"
                faults.add("malformed line", "left out", f"{where}: {wants}; found {line[:60]!r}")
        elif query_id in scores and document_id not in collection.documents:
            what = "run's document that is not there"
            faults.add(what, "left out", f"{where}: {document_id!r}")
        elif query_id in scores and scores[query_id].setdefault(document_id, value) != value:
            what = "document that a run ranks twice"
            faults.add(what, "the first one counts", f"{where}: {document_id!r}")
    if not any(scores.values()):
        why = told(faults.faults())
        raise DataError(f"{path}: holds no candidate for any of {len(scores)} queries{why}")
    ranked = {i: sorted(listed, key=lambda d: -listed[d]) for i, listed in scores.items()}
    return ranked, faults.faults()

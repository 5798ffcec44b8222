"""First stages: the candidates that are reranked, from BM25, a bi-encoder or a TREC run file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpurerank.bi_encoder import BiEncoder
from gpurerank.collection import Collection
from gpurerank.cosine import unit_vectors
from gpurerank.errors import DataError
from gpurerank.faults import Fault, FaultCounter, told
from gpurerank.lexical import LexicalIndex
from gpurerank.text_files import read_lines

# Document ids by query id, best first.
CandidateIds = dict[str, list[str]]

QUERIES_PER_STEP = 64


def search_bm25(
    collection: Collection, query_ids: Sequence[str], depth: int, language: str = "english"
) -> CandidateIds:
    """Up to ``depth`` documents per query by BM25; documents that share no word are left out.

    Raises:
        DataError: No document has a word that can be indexed.
        InputError: The language is unknown; see ``LexicalIndex``.
    """
    document_ids = list(collection.documents)
    passages = [document.passage for document in collection.documents.values()]
    index = LexicalIndex(passages, language)
    if not index:
        raise DataError(
            f"{collection.name}: no document has a word that BM25 can index; for text that is not"
            f" in {language}, name its language or use 'none'"
        )
    results = index.search([collection.queries[i].text for i in query_ids], depth)
    return {
        query_id: [document_ids[row] for row in rows.tolist()]
        for query_id, (rows, _) in zip(query_ids, results, strict=True)
    }


def search_bi_encoder(
    collection: Collection, query_ids: Sequence[str], depth: int, encoder: BiEncoder
) -> CandidateIds:
    """The ``depth`` documents of the highest cosine similarity per query, by exact search.

    Embeds every document of the collection that is not blank.
    """
    document_ids = [i for i, document in collection.documents.items() if document.passage.strip()]
    texts = [collection.documents[i].passage for i in document_ids]
    # Only the passages need unit length: a query's length changes no order.
    passages = unit_vectors(encoder.embed_passages(texts))
    queries = encoder.embed_queries([collection.queries[i].text for i in query_ids])
    candidates: CandidateIds = {}
    # In steps, because all similarities of a large collection do not fit into memory.
    for start in range(0, len(query_ids), QUERIES_PER_STEP):
        similarities = queries[start : start + QUERIES_PER_STEP] @ passages.T  # (step, documents)
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :depth]
        for query_id, rows in zip(query_ids[start:], order.tolist(), strict=False):
            candidates[query_id] = [document_ids[row] for row in rows]
    return candidates


def read_trec_run(
    path: Path, collection: Collection, query_ids: Sequence[str]
) -> tuple[CandidateIds, tuple[Fault, ...]]:
    """Reads candidates from a TREC run: "query Q0 document rank score tag" on each line.

    Args:
        path: Of the run; lines of other queries are skipped.
        collection: Documents that it does not have are left out and counted.
        query_ids: Each has an entry in the result, possibly an empty one.

    Returns:
        The candidates, sorted by score, and the problems in the file.

    Raises:
        DataError: The file cannot be read, or has no candidate for any of the queries.
    """
    scores: dict[str, dict[str, float]] = {query_id: {} for query_id in query_ids}
    counter = FaultCounter()
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path.name}:{number}"
        try:
            query_id, _, document_id, _, score, _ = line.split()
            value = float(score)
        except ValueError:
            value = math.nan
        # float() accepts "nan" and "inf", which have no place in an order.
        if not math.isfinite(value):
            if line.strip():
                expected = "expected six columns, the fifth a finite number"
                counter.add("malformed line", "left out", f"{where}: {expected}; got {line[:60]!r}")
        elif query_id in scores and document_id not in collection.documents:
            problem = "document of the run that is not in the corpus"
            counter.add(problem, "left out", f"{where}: {document_id!r}")
        elif query_id in scores and scores[query_id].setdefault(document_id, value) != value:
            problem = "document with two scores in the run"
            counter.add(problem, "the first one counts", f"{where}: {document_id!r}")
    if not any(scores.values()):
        problems = told(counter.faults())
        raise DataError(f"{path}: has no candidate for any of {len(scores)} queries{problems}")
    # The rank column is ignored: trec_eval too sorts by score.
    ranked = {i: sorted(by_id, key=lambda d: -by_id[d]) for i, by_id in scores.items()}
    return ranked, counter.faults()

"""First stages: which documents a reranker is given."""

from __future__ import annotations

import bm25s

from gpurerank.collection import Collection


def bm25_candidates(collection: Collection, depth: int) -> dict[str, dict[str, float]]:
    """The best ``depth`` documents of each judged query by BM25, with their scores.

    English stop words are left out; k1 and b are those of bm25s.
    """
    ids = list(collection.documents)
    index = bm25s.BM25()
    passages = [document.passage for document in collection.documents.values()]
    index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)
    query_ids = list(collection.judgements)
    queries = [collection.queries[i].text for i in query_ids]
    tokens = bm25s.tokenize(queries, stopwords="en", show_progress=False)
    rows, scores = index.retrieve(tokens, k=min(depth, len(ids)), show_progress=False)
    return {
        query_id: {ids[int(row)]: float(score) for row, score in zip(found, scored, strict=True)}
        for query_id, found, scored in zip(query_ids, rows, scores, strict=True)
    }

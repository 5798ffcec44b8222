"""What a ranker makes of a collection's candidates, measured by ir-measures.

``python -m gpurerank.evaluation.judge FOLDER --split test`` prints nDCG@10 of BM25, the embedded
bi-encoder and a cross-encoder on the same BM25 candidates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ir_measures
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gpurerank.bi_encoder import BiEncoder
from gpurerank.collection import Collection
from gpurerank.evaluation.candidates import bm25_candidates
from gpurerank.reranker import Reranker
from gpurerank.types import Ranker, TextEmbedder

Run = dict[str, dict[str, float]]


def rerank_run(ranker: Ranker, collection: Collection, candidates: Run, title: str) -> Run:
    """The logit of every candidate of every query."""
    run: Run = {}
    for query_id, listed in track(candidates.items(), title, len(candidates)):
        ids = list(listed)
        ranked = ranker.rank(
            collection.queries[query_id].text, [collection.documents[i].passage for i in ids]
        )
        run[query_id] = {ids[p.index]: p.logit for p in ranked if p.logit is not None}
    return run


def similarity_run(encoder: TextEmbedder, collection: Collection, candidates: Run) -> Run:
    """The inner product of query and passage vectors, every candidate embedded once."""
    wanted = list(dict.fromkeys(d for listed in candidates.values() for d in listed))
    row_of = {document_id: row for row, document_id in enumerate(wanted)}
    passages = encoder.embed_passages([collection.documents[i].passage for i in wanted])
    queries = encoder.embed_queries([collection.queries[i].text for i in candidates])
    return {
        query_id: {d: float(passages[row_of[d]] @ query) for d in listed}
        for (query_id, listed), query in zip(candidates.items(), queries, strict=True)
    }


def measure(collection: Collection, run: Run, *names: str) -> dict[str, float]:
    """Means over the judged queries, by name of the measure, such as "nDCG@10"."""
    measures = [ir_measures.parse_measure(name) for name in names]
    found = ir_measures.calc_aggregate(measures, collection.judgements, run)
    return {str(each): float(found[each]) for each in measures}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--queries", type=int, default=None, help="the first so many")
    parser.add_argument("--model", default="embedded", help="the cross-encoder")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    collection = Collection.read(options.folder, options.split)
    kept = dict(list(collection.judgements.items())[: options.queries])
    collection = Collection(collection.name, collection.documents, collection.queries, kept)
    candidates = bm25_candidates(collection, options.depth)
    runs = {"BM25": candidates}
    runs["bi-encoder"] = similarity_run(BiEncoder(dtype=options.dtype), collection, candidates)
    with Reranker(options.model, dtype=options.dtype) as reranker:
        runs["cross-encoder"] = rerank_run(reranker, collection, candidates, "cross-encoder")
    names = ("nDCG@10", "RR@10", "Success@1")
    table = Table("", *names, title=f"{collection.name}, {len(kept)} queries, BM25 {options.depth}")
    for name, run in runs.items():
        values = measure(collection, run, *names).values()
        table.add_row(name, *(f"{value:.4f}" for value in values))
    Console().print(table)


if __name__ == "__main__":
    main()

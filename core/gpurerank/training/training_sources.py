"""Reading of training data: folders in BEIR layout and files of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gpurerank.collection import Collection, Document, Query
from gpurerank.errors import DataError
from gpurerank.faults import FaultCounter, told
from gpurerank.text_files import read_lines
from gpurerank.training.hyperparameters import TrainingSource


def read_source(source: TrainingSource) -> Collection:
    """Reads all judged queries of a source.

    Raises:
        DataError: The source cannot be read, or has nothing usable.
    """
    if source.path.is_dir():
        return Collection.read(source.path, source.split)
    return read_pairs(source.path)


def read_pairs(path: Path) -> Collection:
    """Reads pairs of a query and a passage that answers it, one per line.

    ``.jsonl`` holds objects with "query" and "passage"; any other file is tab-separated. Every
    passage of the file may serve as a negative of other queries. A line without a pair is dropped
    and counted in ``faults``.

    Raises:
        DataError: The file cannot be read, or no line is a pair.
    """
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    faults = FaultCounter()
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            query, passage = _parse_pair(line, as_json=path.suffix in (".jsonl", ".json"))
        except ValueError as error:
            faults.add(str(error), "left out", f"{path.name}:{number}")
            continue
        document_id = documents.setdefault(passage, f"p{len(documents)}")
        query_id = queries.setdefault(query, f"q{len(queries)}")
        if document_id in judgements.setdefault(query_id, {}):
            faults.add("duplicate pair", "used once", f"{path.name}:{number}")
        judgements[query_id][document_id] = 1
    if not judgements:
        raise DataError(f"{path} holds no pair of a query and a passage{told(faults.faults())}")
    return Collection(
        path.stem,
        {i: Document("", text) for text, i in documents.items()},
        {i: Query(text) for text, i in queries.items()},
        judgements,
        faults.faults(),
    )


def sample_collection(
    collection: Collection, source: TrainingSource, rng: np.random.Generator
) -> Collection:
    """Cuts a collection down to the number of queries and passages that the source allows.

    Queries without a relevant passage are dropped; judged passages of the others are kept.
    """
    answerable = [i for i in collection.judgements if collection.relevant(i)]
    # Sorted, so that the sample keeps the order of the file.
    rows = sorted(rng.permutation(len(answerable))[: source.queries])
    judgements = {answerable[row]: collection.judgements[answerable[row]] for row in rows}
    documents = collection.documents
    if source.passages is not None:
        judged = dict.fromkeys(d for grades in judgements.values() for d in grades)
        ids = list(documents)
        shuffled = dict.fromkeys(ids[row] for row in rng.permutation(len(ids)))
        kept = set(list(judged | shuffled)[: max(source.passages, len(judged))])
        documents = {i: document for i, document in documents.items() if i in kept}
    return Collection(collection.name, documents, collection.queries, judgements)


def _parse_pair(line: str, *, as_json: bool) -> tuple[str, str]:
    try:
        if as_json:
            row = json.loads(line)
            query, passage = row["query"], row["passage"]
        else:
            query, passage = line.rstrip("\r").split("\t")
    except (ValueError, KeyError, TypeError) as error:
        expected = 'JSON with "query" and "passage"' if as_json else "a query, a tab and a passage"
        raise ValueError(f"line that is not {expected}") from error
    for role, text in (("query", query), ("passage", passage)):
        if not (isinstance(text, str) and text.strip()):
            raise ValueError(f"pair whose {role} is blank or no text")
    return query, passage

"""From folders in BEIR layout and files of pairs to training lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gpurerank.collection import Collection, Document, Query
from gpurerank.errors import DataError
from gpurerank.faults import FaultCounter, told
from gpurerank.training.hyperparameters import Source, TrainOptions
from gpurerank.training.negative_mining import Miner, Mining, unlabelled_lists
from gpurerank.training.training_lists import TrainingList
from gpurerank.types import TextEmbedder

UNLABELLED_SIZE = 8
_SHORT_TEXTS = 9_000


@dataclass(frozen=True, slots=True)
class Lists:
    """What a run learns from and is judged by, with what was left out and why."""

    training: list[TrainingList]
    held_out: list[TrainingList]
    notes: list[str]


def mine(options: TrainOptions, embedder: TextEmbedder) -> Lists:
    """Every list of every source, shuffled; the same seed gives the same lists.

    Raises:
        DataError: A source cannot be read, or nothing can be learned from all of them.
    """
    rng = np.random.default_rng(options.seed)
    training: list[TrainingList] = []
    held_out: list[TrainingList] = []
    notes: list[str] = []
    short: list[str] = []
    for source in options.sources:
        whole = read(source)
        notes += [f"{whole.name}: {fault}" for fault in whole.faults]
        collection = subset(whole, source, rng)
        query_ids = [str(i) for i in rng.permutation(sorted(collection.judgements))]
        share = min(
            round(len(query_ids) * options.held_out_share),
            options.held_out_limit // len(options.sources),
        )
        miner = Miner(collection, embedder, options.mining, rng)
        held_out += miner.judging(judging(options.mining)).lists(query_ids[:share])
        found = list(miner.lists(query_ids[share:]))
        training += found
        notes.append(
            f"{collection.name}: {len(found):,} lists of {len(query_ids) - share:,} queries over"
            f" {len(collection.documents):,} passages; {share:,} queries held out"
        )
        short += short_texts(collection, rng)
    if not training:
        raise DataError("no query has both a relevant passage and a negative: " + "; ".join(notes))
    training += _unlabelled(short, options, embedder, rng)
    return Lists([training[int(i)] for i in rng.permutation(len(training))], held_out, notes)


def judging(mining: Mining) -> Mining:
    """What held-out queries are judged on: the first stages' best, drawn from no deeper."""
    return replace(
        mining,
        positives=3,
        hard=7,
        hard_depth=7,
        lexical=3,
        middling=0,
        random=0,
        untitled_share=0.0,
        easy_share=1.0,
    )


def read(source: Source) -> Collection:
    """The judged queries of a source.

    Raises:
        DataError: It cannot be read.
    """
    if source.path.is_dir():
        return Collection.read(source.path, source.split)
    return read_pairs(source.path)


def read_pairs(path: Path) -> Collection:
    """Pairs of a query and a passage that answers it, one a line.

    ``.jsonl`` holds objects with "query" and "passage"; anything else is tab-separated. Every
    passage of the file may be a negative of another query. A line that is no pair is left out and
    counted in ``faults``.

    Raises:
        DataError: The file cannot be read, or no line is a pair.
    """
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, int]] = {}
    faults = FaultCounter()
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            query, passage = _pair(line, as_json=path.suffix in (".jsonl", ".json"))
        except ValueError as error:
            faults.add(str(error), "left out", f"{path.name}:{number}")
            continue
        document_id = documents.setdefault(passage, f"p{len(documents)}")
        query_id = queries.setdefault(query, f"q{len(queries)}")
        if document_id in judgements.setdefault(query_id, {}):
            faults.add("pair that stands twice", "taken once", f"{path.name}:{number}")
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


def subset(collection: Collection, source: Source, rng: np.random.Generator) -> Collection:
    """The collection with at most the queries and passages that the source asks for.

    Queries without a relevant passage are left out.
    """
    answerable = [i for i in collection.judgements if collection.relevant(i)]
    kept = [answerable[int(i)] for i in sorted(rng.permutation(len(answerable))[: source.queries])]
    documents = collection.documents
    if source.passages is not None:
        needed = dict.fromkeys(d for i in kept for d in collection.judgements[i])
        ids = list(documents)
        others = (ids[int(i)] for i in rng.permutation(len(ids)))
        wanted = {**needed, **dict.fromkeys(others)}
        chosen = set(list(wanted)[: max(source.passages, len(needed))])
        documents = {i: document for i, document in documents.items() if i in chosen}
    judgements = {i: collection.judgements[i] for i in kept}
    return Collection(collection.name, documents, collection.queries, judgements)


def short_texts(collection: Collection, rng: np.random.Generator) -> list[str]:
    """Queries, titles and first sentences: what short-passage search is made of."""
    queries = [collection.queries[i].text for i in collection.judgements]
    documents = list(collection.documents.values())
    titles = [document.title for document in documents if document.title]
    sentences = [document.text.split(". ")[0][:240] for document in documents]
    texts = [text.strip() for text in queries + titles + sentences if len(text) > 12]
    return [texts[int(i)] for i in rng.permutation(len(texts))[:_SHORT_TEXTS]]


def _unlabelled(
    short: list[str], options: TrainOptions, embedder: TextEmbedder, rng: np.random.Generator
) -> Iterator[TrainingList]:
    if not options.unlabelled:
        return
    texts = list(dict.fromkeys(short))
    asked = [texts[int(row)] for row in rng.permutation(len(texts))[: options.unlabelled]]
    scale = options.mining.teacher_scale
    yield from unlabelled_lists(asked, texts, embedder, UNLABELLED_SIZE, scale, rng)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _pair(line: str, *, as_json: bool) -> tuple[str, str]:
    try:
        if as_json:
            row = json.loads(line)
            query, passage = row["query"], row["passage"]
        else:
            query, passage = line.rstrip("\r").split("\t")
    except (ValueError, KeyError, TypeError) as error:
        wanted = 'JSON with "query" and "passage"' if as_json else "a query, a tab and a passage"
        raise ValueError(f"line that is not {wanted}") from error
    for role, text in (("query", query), ("passage", passage)):
        if not (isinstance(text, str) and text.strip()):
            raise ValueError(f"pair whose {role} is blank or no text")
    return query, passage

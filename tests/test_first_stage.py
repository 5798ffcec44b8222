"""Candidates from BM25, a bi-encoder and a TREC run file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurerank import BiEncoder, DataError
from gpurerank.collection import Collection
from gpurerank.evaluation import QuerySet
from gpurerank.evaluation.first_stage import read_trec_run, search_bi_encoder, search_bm25
from gpurerank.evaluation.query_set import sample_query_ids
from tests.query_sets import TOPICS
from tests.test_collection import write_collection


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    corpus = "".join(
        f'{{"_id": "d{i}{j}", "title": "{topic}", "text": "fact {j} on {topic}, number {i}{j}"}}\n'
        for i, topic in enumerate(TOPICS)
        for j in range(3)
    )
    queries = "".join(
        f'{{"_id": "q{i}", "text": "the fact {i % 3} about {topic}"}}\n'
        for i, topic in enumerate(TOPICS)
    )
    judgements = "".join(f"q{i}\td{i}{i % 3}\t1\n" for i in range(len(TOPICS)))
    return Collection.read(
        write_collection(tmp_path / "facts", corpus, queries, judgements), "test"
    )


def test_bm25_returns_only_documents_that_share_a_word(collection: Collection) -> None:
    candidates = search_bm25(collection, ["q0", "q4"], depth=3)
    assert set(candidates["q0"]) == {"d00", "d01", "d02"}
    assert set(candidates["q4"]) == {"d40", "d41", "d42"}
    assert len(search_bm25(collection, ["q0"], depth=100)["q0"]) < len(collection.documents) + 1


def test_bm25_returns_nothing_for_stop_words_only(tmp_path: Path) -> None:
    corpus = '{"_id": "d", "text": "the cat"}\n{"_id": "e", "text": "dogs"}\n'
    queries = '{"_id": "q", "text": "of the"}\n'
    folder = write_collection(tmp_path / "a", corpus, queries, "q\td\t1\n")
    assert search_bm25(Collection.read(folder, "test"), ["q"], 5) == {"q": []}
    folder = write_collection(tmp_path / "b", '{"_id": "d", "text": "the"}\n', queries, "q\td\t1\n")
    with pytest.raises(DataError, match="no document has a word"):
        search_bm25(Collection.read(folder, "test"), ["q"], 5)


def test_bi_encoder_search_equals_the_bi_encoders_ranking(
    collection: Collection, bi_encoder: BiEncoder
) -> None:
    ids = list(collection.documents)
    passages = [document.passage for document in collection.documents.values()]
    ranked = bi_encoder.rank(collection.queries["q3"].text, passages, top_k=4)
    candidates = search_bi_encoder(collection, ["q1", "q3"], 4, bi_encoder)
    assert candidates["q3"] == [ids[passage.index] for passage in ranked]


def test_a_run_is_sorted_by_score_and_its_problems_are_counted(
    collection: Collection, tmp_path: Path
) -> None:
    path = tmp_path / "my.run"
    lines = [
        "q0 Q0 d00 1 0.5 tag",
        "q0 Q0 d01 2 0.9 tag",
        "q0 Q0 gone 3 0.8 tag",
        "q0 Q0 d01 4 0.1 tag",
        "q8 Q0 d00 1 1.0 tag",
        "q1 Q0 d10 1 nan tag",
        "q1 d10 1.0",
    ]
    path.write_text("\n".join(lines))
    candidates, faults = read_trec_run(path, collection, ["q0", "q1"])
    assert candidates == {"q0": ["d01", "d00"], "q1": []}
    assert [(fault.what, fault.count) for fault in faults] == [
        ("document of the run that is not in the corpus", 1),
        ("document with two scores in the run", 1),
        ("malformed line", 2),
    ]
    queries = QuerySet.from_candidate_ids(
        collection, candidates, first_stage="my", depth=5
    ).with_empty_queries_reported()
    assert [str(fault) for fault in queries.faults] == [
        "query without a candidate, counts as 0: 1 ('q1')"
    ]
    with pytest.raises(DataError, match="has no candidate for any of 1 queries; malformed line"):
        read_trec_run(path, collection, ["q1"])


def test_a_sample_depends_on_the_seed_only(collection: Collection) -> None:
    assert sample_query_ids(collection, None, 0) == list(collection.judgements)
    assert sample_query_ids(collection, 99, 0) == list(collection.judgements)
    drawn = sample_query_ids(collection, 4, 7)
    assert drawn == sample_query_ids(collection, 4, 7)
    assert len(set(drawn)) == 4
    assert {tuple(sample_query_ids(collection, 4, seed)) for seed in range(9)} != {tuple(drawn)}

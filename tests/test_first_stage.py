"""Candidates of a first stage: BM25, vectors, a run that somebody else made."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurerank import BiEncoder, DataError
from gpurerank.collection import Collection
from gpurerank.evaluation import QuerySet
from gpurerank.evaluation.first_stage import bm25, nearest, read_run
from gpurerank.evaluation.queries import sample
from tests.made_up import TOPICS
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


def test_bm25_finds_what_shares_words_and_nothing_else(collection: Collection) -> None:
    found = bm25(collection, ["q0", "q4"], depth=3)
    assert set(found["q0"]) == {"d00", "d01", "d02"}
    assert set(found["q4"]) == {"d40", "d41", "d42"}
    assert len(bm25(collection, ["q0"], depth=100)["q0"]) < len(collection.documents) + 1


def test_bm25_of_words_that_say_nothing_finds_nothing(tmp_path: Path) -> None:
    corpus = '{"_id": "d", "text": "the cat"}\n{"_id": "e", "text": "dogs"}\n'
    queries = '{"_id": "q", "text": "of the"}\n'
    folder = write_collection(tmp_path / "a", corpus, queries, "q\td\t1\n")
    assert bm25(Collection.read(folder, "test"), ["q"], 5) == {"q": []}
    folder = write_collection(tmp_path / "b", '{"_id": "d", "text": "the"}\n', queries, "q\td\t1\n")
    with pytest.raises(DataError, match="no document has a word"):
        bm25(Collection.read(folder, "test"), ["q"], 5)


def test_nearest_is_the_bi_encoders_own_ranking(
    collection: Collection, bi_encoder: BiEncoder
) -> None:
    ids = list(collection.documents)
    passages = [document.passage for document in collection.documents.values()]
    ranked = bi_encoder.rank(collection.queries["q3"].text, passages, top_k=4)
    found = nearest(collection, ["q1", "q3"], 4, bi_encoder)
    assert found["q3"] == [ids[passage.index] for passage in ranked]


def test_a_run_is_read_by_score_and_its_faults_are_counted(
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
    found, faults = read_run(path, collection, ["q0", "q1"])
    assert found == {"q0": ["d01", "d00"], "q1": []}
    assert [(fault.what, fault.count) for fault in faults] == [
        ("run's document that is not there", 1),
        ("document that a run ranks twice", 1),
        ("malformed line", 2),
    ]
    queries = QuerySet.from_found(collection, found, first_stage="my", depth=5).without_empty()
    assert [str(fault) for fault in queries.faults] == [
        "query for which nothing was found, counts as 0: 1 ('q1')"
    ]
    with pytest.raises(DataError, match="holds no candidate for any of 1 queries; malformed line"):
        read_run(path, collection, ["q1"])


def test_a_sample_is_drawn_with_its_seed(collection: Collection) -> None:
    assert sample(collection, None, 0) == list(collection.judgements)
    assert sample(collection, 99, 0) == list(collection.judgements)
    drawn = sample(collection, 4, 7)
    assert drawn == sample(collection, 4, 7)
    assert len(set(drawn)) == 4
    assert {tuple(sample(collection, 4, seed)) for seed in range(9)} != {tuple(drawn)}

"""Collections as they lie on people's disks: what is read, what is left out, what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurerank.collection import Collection
from gpurerank.errors import DataError

GOOD_CORPUS = '{"_id": "d1", "title": "T", "text": "x"}\n{"_id": "d2", "text": "y"}\n'
GOOD_QUERIES = '{"_id": "q1", "text": "ask", "metadata": {"answers": ["x"]}}\n'
GOOD_JUDGEMENTS = "q1\td1\t2\nq1\td2\t0\n"
HEADER = "query-id\tcorpus-id\tscore\n"


def write_collection(folder: Path, corpus: str, queries: str, judgements: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(corpus)
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_text(HEADER + judgements)
    return folder


def test_collection_is_read(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "mine", GOOD_CORPUS, GOOD_QUERIES, GOOD_JUDGEMENTS)
    collection = Collection.read(folder, "test")
    assert collection.name == "mine"
    assert collection.documents["d1"].passage == "T x"
    assert collection.documents["d2"].passage == "y"
    assert collection.queries["q1"].answers == ("x",)
    assert collection.relevant("q1") == ["d1"]
    assert collection.faults == ()


def test_a_judgement_file_without_header_loses_nothing(tmp_path: Path) -> None:
    folder = write_collection(tmp_path, GOOD_CORPUS, GOOD_QUERIES, "")
    (folder / "qrels" / "test.tsv").write_text(GOOD_JUDGEMENTS)
    collection = Collection.read(folder, "test")
    assert collection.judgements == {"q1": {"d1": 2, "d2": 0}}
    assert collection.faults == ()


@pytest.mark.parametrize(
    ("corpus", "queries", "judgements", "said"),
    [
        ("{", "", "", r"malformed line, left out: 1 \(corpus\.jsonl:3: not JSON"),
        ('{"_id": "d9", "text": 5}\n', "", "", "'text' must be a string, found int"),
        ("", "[]\n", "", r"queries\.jsonl:2: no object with an '_id'"),
        ("", '{"_id": "", "text": "x"}\n', "", "no object with an '_id'"),
        (GOOD_CORPUS, "", "", r"document id that stands twice.*: 2 \(corpus\.jsonl:3: 'd1'"),
        ("", GOOD_QUERIES, "", "query id that stands twice, the first one counts: 1"),
        ('{"_id": "d9", "text": " "}\n', "", "", "blank document, kept: 1"),
        ("", '{"_id": "q2", "text": ""}\n', "", "blank query, left out: 1"),
        ("", "", "q1\td9\t1\n", r"document that is not there, left out: 1 \(test\.tsv:4: 'd9'"),
        ("", "", "q9\td1\t1\n", "query that is not there, left out: 1"),
        ("", "", "q1\td1\tgood\n", r"test\.tsv:4: wants"),
        ("", "", "q1 0 d1 1\n", r"test\.tsv:4: wants"),
        ("", "", "q1\td1\t1\n", "second judgement with another grade, left out: 1"),
        ("", '{"_id": "q2", "text": "x"}\n', "q2\td1\t0\n", "without a relevant document, kept"),
    ],
)
def test_a_fault_is_counted_and_the_rest_is_read(
    corpus: str, queries: str, judgements: str, said: str, tmp_path: Path
) -> None:
    folder = write_collection(
        tmp_path, GOOD_CORPUS + corpus, GOOD_QUERIES + queries, GOOD_JUDGEMENTS + judgements
    )
    collection = Collection.read(folder, "test")
    (fault,) = collection.faults
    with pytest.raises(DataError, match=said):
        raise DataError(str(fault))
    assert collection.judgements["q1"] == {"d1": 2, "d2": 0}
    assert collection.documents["d1"].text == "x"


def test_faults_of_a_kind_are_counted_together(tmp_path: Path) -> None:
    judgements = GOOD_JUDGEMENTS + "".join(f"q1\tgone{i}\t1\n" for i in range(500))
    folder = write_collection(tmp_path, GOOD_CORPUS, GOOD_QUERIES, judgements)
    (fault,) = Collection.read(folder, "test").faults
    assert (fault.count, len(fault.examples)) == (500, 3)
    assert str(fault).endswith("(test.tsv:4: 'gone0'; test.tsv:5: 'gone1'; test.tsv:6: 'gone2'; …)")


@pytest.mark.parametrize(
    ("corpus", "queries", "judgements", "said"),
    [
        ("", GOOD_QUERIES, GOOD_JUDGEMENTS, r"corpus\.jsonl holds no usable document; the file is"),
        (
            "{\n{\n",
            GOOD_QUERIES,
            GOOD_JUDGEMENTS,
            "no usable document; malformed line, left out: 2",
        ),
        (GOOD_CORPUS, "\n", GOOD_JUDGEMENTS, r"queries\.jsonl holds no usable query"),
        (GOOD_CORPUS, GOOD_QUERIES, "", r"qrels.test\.tsv holds no usable judgement"),
        (GOOD_CORPUS, GOOD_QUERIES, "q1\tgone\t1\n", "judgement; judgement of a document that is"),
    ],
)
def test_where_nothing_is_usable_reading_stops(
    corpus: str, queries: str, judgements: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        Collection.read(write_collection(tmp_path, corpus, queries, judgements), "test")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.jsonl: cannot be read"):
        Collection.read(tmp_path, "test")
    write_collection(tmp_path, GOOD_CORPUS, GOOD_QUERIES, GOOD_JUDGEMENTS)
    with pytest.raises(DataError, match=r"dev\.tsv: cannot be read: no such split; there is test"):
        Collection.read(tmp_path, "dev")
    (tmp_path / "queries.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"queries\.jsonl: line 1 begins as UTF-16 text"):
        Collection.read(tmp_path, "test")

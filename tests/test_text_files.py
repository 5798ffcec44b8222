"""Text files as editors on Windows save them: read alike by every command, or refused clearly."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from gpurerank import InputError
from gpurerank.collection import Collection
from gpurerank.demo.corpus import read_folder
from gpurerank.errors import DataError
from gpurerank.evaluation.first_stage import read_trec_run
from gpurerank.offline.input_files import list_input_files
from gpurerank.offline.row_reader import read_schema
from gpurerank.offline.score_job import Columns
from gpurerank.text_files import read_lines, read_text
from gpurerank.training.training_sources import read_pairs
from tests.conftest import InProcess

ROWS = '{"text": "spanners are in the drawer"}\r\n{"text": "lunch — at noon"}\r\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_and_line_ends_of_windows_are_no_text(
    tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes("a\u2028b\r\n\r\n—".encode(encoding))
    assert list(read_lines(file)) == ["a\u2028b", "", "—"]
    assert read_text(file) == "a\u2028b\n\n—"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ROWS.encode("utf-16"), "line 1 begins as UTF-16 text does; convert the file to UTF-8"),
        (ROWS.encode("utf-16-le"), "line 1 begins as UTF-16 or UTF-32 text does"),
        (ROWS.encode("utf-32"), "line 1 begins as UTF-32 text does"),
        (ROWS.encode("cp1252"), r"line 2 is not UTF-8 \(byte 0x97 at column 17\), perhaps Latin-1"),
    ],
)
def test_other_encodings_are_refused_with_the_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "file.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"file.jsonl: {message}"):
        list(read_lines(file))
    with pytest.raises(DataError, match=message):
        read_pairs(file)
    for name in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Collection.read(tmp_path, "test")
    with pytest.raises(DataError, match=message):
        read_trec_run(file, Collection("c", {}, {}, {}), [])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path / "docs")


def test_rank_reads_a_file_with_a_mark_as_one_without(here: InProcess, tmp_path: Path) -> None:
    results = []
    for encoding in ("utf-8", "utf-8-sig"):
        file = tmp_path / f"{encoding}.jsonl"
        file.write_bytes(ROWS.encode(encoding))
        status, output, _ = here("rank", "where is the spanner?", "--file", str(file), "--json")
        assert status == 0
        results.append([json.loads(line) for line in output.splitlines()])
    assert results[0] == results[1]
    assert {row["passage"] for row in results[0]} == {
        "spanners are in the drawer",
        "lunch — at noon",
    }
    file.write_bytes(ROWS.encode("utf-16"))
    status, _, errors = here("rank", "where is the spanner?", "--file", str(file))
    assert status == 1
    assert "convert the file to UTF-8" in errors


def test_train_keeps_the_first_pair_of_a_file_with_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    row = json.dumps({"query": "where?", "passage": "here"}).encode()
    file.write_bytes(codecs.BOM_UTF8 + row + b"\r\n")
    assert [query.text for query in read_pairs(file).queries.values()] == ["where?"]
    table = tmp_path / "pairs.tsv"
    table.write_bytes(codecs.BOM_UTF8 + b"where?\there\r\n")
    collection = read_pairs(table)
    assert [query.text for query in collection.queries.values()] == ["where?"]
    assert [document.text for document in collection.documents.values()] == ["here"]


def test_score_takes_a_mark_and_refuses_utf_16(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    row = json.dumps({"query": "where?", "passage": "here"})
    file.write_text(row, encoding="utf-8-sig")
    assert read_schema(list_input_files([str(file)]), Columns()).names == ["query", "passage"]
    file.write_text(row, encoding="utf-16")
    with pytest.raises(InputError, match="line 1 begins as UTF-16 text does"):
        read_schema(list_input_files([str(file)]), Columns())

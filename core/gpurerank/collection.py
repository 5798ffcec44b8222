"""A test collection: passages, queries and judgements, in the BEIR folder layout."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gpurerank.errors import DataError

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Document:
    """One entry of ``corpus.jsonl``."""

    title: str
    text: str

    @property
    def passage(self) -> str:
        """Title and text joined by a space, as BEIR's own baselines score it."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """One entry of ``queries.jsonl``; ``answers`` are the strings that answer it, where known."""

    text: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, queries and graded judgements; every mapping keeps the order of its file.

    ``judgements[query_id][document_id]`` is the grade, a whole number; over 0 is relevant.
    """

    name: str
    documents: dict[str, Document]
    queries: dict[str, Query]
    judgements: dict[str, dict[str, int]]

    @classmethod
    def read(cls, folder: Path, split: str) -> Collection:
        """Reads ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

        Raises:
            DataError: A file is missing, a line is malformed, an id stands twice, or a judgement
                names an unknown query or document.
        """
        documents: dict[str, Document] = {}
        for where, row in _json_lines(folder / "corpus.jsonl"):
            _add(documents, where, row, Document(str(row.get("title") or ""), _text(where, row)))
        queries: dict[str, Query] = {}
        for where, row in _json_lines(folder / "queries.jsonl"):
            answers = (row.get("metadata") or {}).get("answers") or ()
            _add(queries, where, row, Query(_text(where, row), tuple(answers)))
        judgements: dict[str, dict[str, int]] = {}
        for where, query_id, document_id, grade in _judgements(folder / "qrels" / f"{split}.tsv"):
            if query_id not in queries or document_id not in documents:
                unknown = (
                    f"query {query_id!r}"
                    if query_id not in queries
                    else (f"document {document_id!r}")
                )
                raise DataError(f"{where}: the judgement names an unknown {unknown}")
            judgements.setdefault(query_id, {})[document_id] = grade
        return cls(folder.name, documents, queries, judgements)

    def relevant(self, query_id: str) -> list[str]:
        """Ids of the documents judged over 0 for a query, in file order."""
        return [d for d, grade in self.judgements.get(query_id, {}).items() if grade > 0]


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict) or "_id" not in row:
            raise DataError(f"{path}:{number}: wants an object with '_id', found {line[:60]!r}")
        yield f"{path}:{number}", row


def _text(where: str, row: dict[str, Any]) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise DataError(f"{where}: 'text' must be a string, found {type(text).__name__}")
    return text


def _add(entries: dict[str, Entry], where: str, row: dict[str, Any], entry: Entry) -> None:
    identifier = str(row["_id"])
    if identifier in entries:
        raise DataError(f"{where}: id {identifier!r} stands twice")
    entries[identifier] = entry


def _judgements(path: Path) -> Iterator[tuple[str, str, str, int]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    for number, row in enumerate(rows[1:], 2):
        try:
            query_id, document_id, grade = row
            yield f"{path}:{number}", query_id, document_id, int(grade)
        except ValueError as error:
            raise DataError(
                f"{path}:{number}: wants query-id, corpus-id and a whole-number score,"
                f" tab-separated; found {row}"
            ) from error

"""A test collection: passages, queries and judgements, in the BEIR folder layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gpurerank.errors import DataError
from gpurerank.faults import Fault, FaultCounter, told
from gpurerank.text_files import read_lines

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

    ``judgements[query_id][document_id]`` is the grade, a whole number; over 0 is relevant. Every
    judgement names a query and a document that are there. ``faults`` says what was wrong with the
    files; a blank document and a query without a relevant one are counted there and kept.
    """

    name: str
    documents: dict[str, Document]
    queries: dict[str, Query]
    judgements: dict[str, dict[str, int]]
    faults: tuple[Fault, ...] = ()

    @classmethod
    def read(cls, folder: Path, split: str) -> Collection:
        """Reads ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

        What is not usable is left out and counted in ``faults``.

        Raises:
            DataError: A file cannot be read, or nothing usable is left of it.
        """
        reader = _Reader(folder, FaultCounter())
        documents = reader.documents()
        queries = reader.queries()
        judgements = reader.judgements(split, documents, queries)
        name = folder.resolve().name
        return cls(name, documents, queries, judgements, reader.faults.faults())

    def relevant(self, query_id: str) -> list[str]:
        """Ids of the documents judged over 0 for a query, in file order."""
        return [d for d, grade in self.judgements.get(query_id, {}).items() if grade > 0]


@dataclass(slots=True)
class _Reader:
    """Reads the files of one folder and counts what is wrong with them."""

    folder: Path
    faults: FaultCounter

    def documents(self) -> dict[str, Document]:
        found: dict[str, Document] = {}
        for where, row in self._rows("corpus.jsonl"):
            document = Document(str(row.get("title") or ""), row["text"])
            if self._add(found, "document", where, row, document) and not document.passage.strip():
                self.faults.add("blank document", "kept", f"{where}: {str(row['_id'])!r}")
        self._demand(found, "corpus.jsonl", "document")
        return found

    def queries(self) -> dict[str, Query]:
        found: dict[str, Query] = {}
        for where, row in self._rows("queries.jsonl"):
            if not row["text"].strip():
                self.faults.add("blank query", "left out", f"{where}: {str(row['_id'])!r}")
                continue
            self._add(found, "query", where, row, Query(row["text"], _answers(row)))
        self._demand(found, "queries.jsonl", "query")
        return found

    def judgements(
        self, split: str, documents: dict[str, Document], queries: dict[str, Query]
    ) -> dict[str, dict[str, int]]:
        path = self.folder / "qrels" / f"{split}.tsv"
        if not path.exists():
            splits = sorted(each.stem for each in path.parent.glob("*.tsv"))
            there = f"there is {', '.join(splits)}" if splits else "the folder has no such file"
            raise DataError(f"{path}: cannot be read: no such split; {there}")
        found: dict[str, dict[str, int]] = {}
        for where, query_id, document_id, grade in self._judgements(path):
            if query_id not in queries:
                self._leave_out("judgement for a query that is not there", where, query_id)
            elif document_id not in documents:
                self._leave_out("judgement of a document that is not there", where, document_id)
            elif found.setdefault(query_id, {}).setdefault(document_id, grade) != grade:
                self._leave_out("second judgement with another grade", where, document_id)
        self._demand(found, f"qrels/{split}.tsv", "judgement")
        for query_id, graded in found.items():
            if max(graded.values()) <= 0:
                self.faults.add("query without a relevant document", "kept", repr(query_id))
        return found

    def _rows(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Places and objects that have an id and a text."""
        for where, line in _lines(self.folder / name):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                self.faults.add("malformed line", "left out", f"{where}: not JSON: {error}")
                continue
            if not isinstance(row, dict) or row.get("_id") in (None, ""):
                self.faults.add(
                    "malformed line", "left out", f"{where}: no object with an '_id': {line[:60]!r}"
                )
            elif not isinstance(row.get("text"), str):
                kind = type(row.get("text")).__name__
                self.faults.add(
                    "malformed line", "left out", f"{where}: 'text' must be a string, found {kind}"
                )
            else:
                yield where, row

    def _judgements(self, path: Path) -> Iterator[tuple[str, str, str, int]]:
        for number, (where, line) in enumerate(_lines(path)):
            fields = line.rstrip("\r\n").split("\t")
            try:
                query_id, document_id, grade = fields
                yield where, query_id, document_id, int(grade)
            except ValueError:
                # The header is one such line; a file without a header loses nothing.
                if line.strip() and (number > 0 or len(fields) != 3):
                    self.faults.add(
                        "malformed line",
                        "left out",
                        f"{where}: wants query-id, corpus-id and a whole-number score,"
                        f" tab-separated; found {fields}",
                    )

    def _add(
        self,
        entries: dict[str, Entry],
        role: str,
        where: str,
        row: dict[str, Any],
        entry: Entry,
    ) -> bool:
        identifier = str(row["_id"])
        if identifier in entries:
            self.faults.add(
                f"{role} id that stands twice", "the first one counts", f"{where}: {identifier!r}"
            )
            return False
        entries[identifier] = entry
        return True

    def _leave_out(self, what: str, where: str, identifier: str) -> None:
        self.faults.add(what, "left out", f"{where}: {identifier!r}")

    def _demand(self, found: dict[str, Any], name: str, what: str) -> None:
        if not found:
            why = told(self.faults.faults()) or "; the file is empty"
            raise DataError(f"{self.folder / name} holds no usable {what}{why}")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Places such as "corpus.jsonl:3" and lines; only a line feed ends a line."""
    for number, line in enumerate(read_lines(path), 1):
        yield f"{path.name}:{number}", line


def _answers(row: dict[str, Any]) -> tuple[str, ...]:
    metadata = row.get("metadata")
    found = metadata.get("answers") if isinstance(metadata, dict) else None
    return tuple(str(answer) for answer in found) if isinstance(found, list) else ()

"""Scoring rows: those that cannot be scored get their error and stop nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from gpurerank.errors import DeviceError, InputError, RemoteError, ScoringError
from gpurerank.offline.row_reader import passages_column
from gpurerank.offline.score_job import Columns
from gpurerank.ranking import logit_of
from gpurerank.request import check_query, check_texts


class PairsScorer(Protocol):
    """What scores pairs: a Reranker, or a stand-in of its shape."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One score in [0, 1] for each pair."""
        ...


@dataclass(slots=True)
class Row:
    """A row on its way.

    Attributes:
        pairs: What is scored; one, or one for each candidate.
        scores: One for each pair, once they are known.
        error: Why there are none.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    scores: list[float] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What was done: rows, those of them that failed, and pairs scored."""

    rows: int = 0
    failed: int = 0
    pairs: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rows + other.rows, self.failed + other.failed, self.pairs + other.pairs)


def scored(
    table: pa.Table, errors: Sequence[str | None], columns: Columns, scorer: PairsScorer
) -> tuple[pa.Table, Counts]:
    """The table with its scores.

    Args:
        table: Rows as they were read.
        errors: What was wrong in reading each, if anything.
        columns: Their names.
        scorer: What scores.

    Raises:
        GPURerankError: What no other row would escape, such as a lost device.
    """
    passages = passages_column(table.schema, columns)
    queries, texts = table[columns.query].to_pylist(), table[passages].to_pylist()
    many = passages == columns.candidates
    rows = [_row(*each, many=many) for each in zip(queries, texts, errors, strict=True)]
    _score([row for row in rows if row.error is None], scorer)
    counts = Counts(
        len(rows),
        sum(row.error is not None for row in rows),
        sum(len(r.scores or ()) for r in rows),
    )
    kept = table.drop_columns([columns.query, passages]) if columns.drop_text else table
    return _with_scores(kept, rows, columns.prefix, many=many), counts


def output_schema(schema: pa.Schema, columns: Columns) -> pa.Schema:
    """What the output of an input has."""
    many = passages_column(schema, columns) == columns.candidates
    return _with_scores(
        schema.empty_table().drop_columns(
            [columns.query, passages_column(schema, columns)] if columns.drop_text else []
        ),
        [],
        columns.prefix,
        many=many,
    ).schema


def _row(query: Any, passages: Any, error: str | None, *, many: bool) -> Row:
    if error is not None:
        return Row(error=error)
    if passages is None:
        return Row(error=f"the {'candidates are' if many else 'passage is'} null")
    try:
        check_query(query)
        listed = check_texts(passages if many else [passages], "passage")
    except InputError as wrong:
        return Row(error=str(wrong))
    return Row([(query, passage) for passage in listed])


def _score(rows: list[Row], scorer: PairsScorer) -> None:
    """Scores rows together; halves them where that fails, down to the one that does."""
    pairs = [pair for row in rows for pair in row.pairs]
    if not pairs:
        for row in rows:
            row.scores = []
        return
    try:
        found = scorer.score_pairs(pairs)
    except (DeviceError, RemoteError):
        # Not the fault of any row.
        raise
    except ScoringError as error:
        if len(rows) == 1:
            rows[0].error = f"{type(error).__name__}: {error}"
            return
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            _score(half, scorer)
        return
    start = 0
    for row in rows:
        row.scores = found[start : start + len(row.pairs)]
        start += len(row.pairs)


def _with_scores(table: pa.Table, rows: list[Row], prefix: str, *, many: bool) -> pa.Table:
    scores = [row.scores if row.error is None else None for row in rows]
    logits = [None if found is None else [logit_of(score) for score in found] for found in scores]
    number = pa.float64()
    for name, values in (("score", scores), ("logit", logits)):
        column = (
            pa.array(values, pa.list_(number))
            if many
            else pa.array([None if v is None else v[0] for v in values], number)
        )
        table = table.append_column(f"{prefix}{name}{'s' if many else ''}", column)
    return table.append_column(f"{prefix}error", pa.array([r.error for r in rows], pa.string()))

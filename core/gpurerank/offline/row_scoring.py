"""Scoring of rows: a row that cannot be scored gets an error and does not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from gpurerank.errors import DeviceError, InputError, RemoteError, ScoringError
from gpurerank.offline.row_reader import passages_column
from gpurerank.offline.score_job import Columns
from gpurerank.ranking import logit_of
from gpurerank.request import check_query, check_texts
from gpurerank.types import PairScorer


@dataclass(slots=True)
class Row:
    """A row that is being scored.

    Attributes:
        pairs: One pair, or one per candidate.
        scores: One score per pair, in [0, 1]; None before scoring and after an error.
        error: Why there are no scores.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    scores: list[float] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of rows, of rows with an error among them, and of scored pairs."""

    rows: int = 0
    failed: int = 0
    pairs: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rows + other.rows, self.failed + other.failed, self.pairs + other.pairs)


def score_table(
    table: pa.Table, read_errors: Sequence[str | None], columns: Columns, scorer: PairScorer
) -> tuple[pa.Table, Counts]:
    """Appends the columns of scores, logits and errors to a table.

    Args:
        table: Rows as read.
        read_errors: For each row, why it could not be read, or None.
        columns: Column names.
        scorer: Scores pairs, in [0, 1].

    Raises:
        GPURerankError: A failure that no row caused, such as a lost device.
    """
    column = passages_column(table.schema, columns)
    is_list = column == columns.candidates
    queries, passages = table[columns.query].to_pylist(), table[column].to_pylist()
    rows = [
        _make_row(query, value, error, is_list=is_list)
        for query, value, error in zip(queries, passages, read_errors, strict=True)
    ]
    _score_rows([row for row in rows if row.error is None], scorer)
    counts = Counts(
        rows=len(rows),
        failed=sum(row.error is not None for row in rows),
        pairs=sum(len(row.scores or ()) for row in rows),
    )
    return _append_columns(table, rows, columns), counts


def output_schema(schema: pa.Schema, columns: Columns) -> pa.Schema:
    """The columns of the output for an input with these columns."""
    return _append_columns(schema.empty_table(), [], columns).schema


def _make_row(query: Any, passages: Any, error: str | None, *, is_list: bool) -> Row:
    if error is not None:
        return Row(error=error)
    if passages is None:
        return Row(error=f"the {'candidates are' if is_list else 'passage is'} null")
    try:
        check_query(query)
        texts = check_texts(passages if is_list else [passages], "passage")
    except InputError as input_error:
        return Row(error=str(input_error))
    return Row([(query, text) for text in texts])


def _score_rows(rows: list[Row], scorer: PairScorer) -> None:
    """Scores rows together; after a failure it halves them until the failing row is alone."""
    pairs = [pair for row in rows for pair in row.pairs]
    try:
        scores = iter(scorer.score_pairs(pairs) if pairs else [])
    except (DeviceError, RemoteError):
        raise  # no row caused it
    except ScoringError as error:
        if len(rows) == 1:
            rows[0].error = f"{type(error).__name__}: {error}"
            return
        middle = len(rows) // 2
        _score_rows(rows[:middle], scorer)
        _score_rows(rows[middle:], scorer)
        return
    for row in rows:
        row.scores = list(islice(scores, len(row.pairs)))


def _append_columns(table: pa.Table, rows: list[Row], columns: Columns) -> pa.Table:
    column = passages_column(table.schema, columns)
    is_list = column == columns.candidates
    if columns.drop_text:
        table = table.drop_columns([columns.query, column])
    scores = [row.scores if row.error is None else None for row in rows]
    logits = [None if row is None else [logit_of(score) for score in row] for row in scores]
    for name, values in (("score", scores), ("logit", logits)):
        if is_list:
            array = pa.array(values, pa.list_(pa.float64()))
        else:
            array = pa.array([None if row is None else row[0] for row in values], pa.float64())
        table = table.append_column(f"{columns.prefix}{name}{'s' if is_list else ''}", array)
    errors = pa.array([row.error for row in rows], pa.string())
    return table.append_column(f"{columns.prefix}error", errors)

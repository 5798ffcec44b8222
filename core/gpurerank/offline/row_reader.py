"""Reading of the rows of a part, in slices that fit in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpurerank.errors import DataError
from gpurerank.offline.input_files import PARQUET, InputFile, Part, open_filesystem
from gpurerank.offline.score_job import Columns
from gpurerank.text_files import check_encoding

# Rows in memory at a time: enough to fill batches, few enough for long lists of candidates.
ROWS_PER_SLICE = 512
# Lines of each JSON lines file that are inspected for its columns.
_INSPECTED_LINES = 200
_LONGEST_LINE_BYTES = 64 << 20
# What Arrow raises for a value that a column cannot hold, such as half of a surrogate pair.
_CONVERSION_ERRORS = (ValueError, TypeError, OverflowError)


def read_schema(files: Sequence[InputFile], columns: Columns) -> pa.Schema:
    """Reads the columns of the input; those of JSON lines from the first lines of each file.

    Raises:
        DataError: A required column is missing, an output column exists already, or two files
            disagree on the type of a column.
    """
    is_parquet = files[0].rows is not None
    schemas = [_parquet_schema(f.path) if is_parquet else _json_schema(f.path) for f in files]
    try:
        # Types guessed from a few JSON lines may be narrower than those of another file.
        promotion = "default" if is_parquet else "permissive"
        merged = pa.unify_schemas(schemas, promote_options=promotion)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"the input files differ in the type of a column: {error}") from error
    schema = pa.schema([_nullable(field) for field in merged])
    _check_columns(schema, columns)
    return schema


def passages_column(schema: pa.Schema, columns: Columns) -> str:
    """Name of the column with the passages: ``candidates`` if the input has it."""
    return columns.candidates if columns.candidates in schema.names else columns.passage


def read_slices(part: Part, schema: pa.Schema) -> Iterator[tuple[pa.Table, list[str | None]]]:
    """Yields the rows of a part, and for each row why it could not be read, or None."""
    system, path = open_filesystem(part.path)
    with system.open_input_file(path) as file:
        if path.lower().endswith(PARQUET):
            for table in _parquet_slices(file, part, schema):
                yield table, [None] * table.num_rows
        else:
            yield from _json_slices(file, part, schema)


def _parquet_slices(file: Any, part: Part, schema: pa.Schema) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    group_start = 0
    for group in range(parquet.num_row_groups):
        group_rows = parquet.metadata.row_group(group).num_rows
        if group_start < part.stop and group_start + group_rows > part.start:
            row = group_start
            for batch in parquet.iter_batches(ROWS_PER_SLICE, row_groups=[group]):
                start, stop = max(part.start - row, 0), min(part.stop - row, batch.num_rows)
                if start < stop:
                    yield _cast(pa.table(batch.slice(start, stop - start)), schema)
                row += batch.num_rows
        group_start += group_rows


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def _json_slices(
    file: Any, part: Part, schema: pa.Schema
) -> Iterator[tuple[pa.Table, list[str | None]]]:
    lines = _lines(file, part)
    while batch := list(islice(lines, ROWS_PER_SLICE)):
        yield _build_table([_parse_line(*line) for line in batch], schema)


def _lines(file: Any, part: Part) -> Iterator[tuple[int, bytes]]:
    """Yields the start byte and text of each line that begins in a part, except blank lines.

    A line over the limit is cut to ``_LONGEST_LINE_BYTES``.
    """
    reader = io.BufferedReader(file, 1 << 20)
    if part.start:
        # The line around the start belongs to the part before. Skipping from one byte earlier keeps
        # a line that begins exactly at the start.
        reader.seek(part.start - 1)
        _skip_line(reader)
    while (start := reader.tell()) < part.stop:
        line = reader.readline(_LONGEST_LINE_BYTES)
        if len(line) == _LONGEST_LINE_BYTES:
            _skip_line(reader)
        if line.strip():
            yield start, line
    reader.detach()


def _skip_line(reader: io.BufferedReader) -> None:
    """Reads to the end of the line, in pieces: a line may be longer than memory."""
    while (piece := reader.readline(1 << 20)) and not piece.endswith(b"\n"):
        pass


def _parse_line(start: int, line: bytes) -> dict[str, Any] | str:
    """The JSON object of a line, or an error message, which quotes none of the text."""
    where = f"the line at byte {start:,}"
    if len(line) == _LONGEST_LINE_BYTES:
        return f"{where} is longer than {_LONGEST_LINE_BYTES:,} bytes"
    try:
        row = json.loads(line)
    except RecursionError:
        return f"{where} is nested too deeply"
    except ValueError as error:
        reason = (
            error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8; convert the file"
        )
        return f"{where} is not JSON: {reason}"
    if not isinstance(row, dict):
        return f"{where} is {type(row).__name__}, not a JSON object"
    return row


def _build_table(
    rows: list[dict[str, Any] | str], schema: pa.Schema
) -> tuple[pa.Table, list[str | None]]:
    errors = [row if isinstance(row, str) else None for row in rows]
    objects = [{} if isinstance(row, str) else row for row in rows]
    arrays = []
    for field in schema:
        values = [row.get(field.name) for row in objects]
        try:
            arrays.append(pa.array(values, field.type))
        except _CONVERSION_ERRORS:
            arrays.append(pa.array(_convertible(values, field, errors), field.type))
    return pa.table(arrays, schema=schema), errors


def _convertible(values: list[Any], field: pa.Field, errors: list[str | None]) -> list[Any]:
    """Replaces values of another type by None, and adds a message to ``errors`` for each."""
    kept = []
    for row, value in enumerate(values):
        try:
            pa.array([value], field.type)
            kept.append(value)
        except _CONVERSION_ERRORS:
            kept.append(None)
            errors[row] = errors[row] or f"{field.name} is {type(value).__name__}, not {field.type}"
    return kept


def _parquet_schema(path: str) -> pa.Schema:
    system, inside = open_filesystem(path)
    with system.open_input_file(inside) as file:
        return pq.read_schema(file).remove_metadata()


def _json_schema(path: str) -> pa.Schema:
    system, inside = open_filesystem(path)
    fields: dict[str, pa.Field] = {}
    with system.open_input_file(inside) as file:
        check_encoding(file.read(4), path)
        file.seek(0)
        for line in islice(_lines(file, Part(0, path, 0, file.size())), _INSPECTED_LINES):
            row = _parse_line(*line)
            for name, value in {} if isinstance(row, str) else row.items():
                fields[name] = _widen(fields.get(name), name, value)
    return pa.schema(fields.values())


def _widen(field: pa.Field | None, name: str, value: Any) -> pa.Field:
    """The field that holds one more value; unchanged if no type holds both."""
    try:
        new = pa.field(name, pa.array([value]).type)
        if field is None or pa.types.is_null(field.type):
            return new
        both = [pa.schema([field]), pa.schema([new])]
        return pa.unify_schemas(both, promote_options="permissive").field(0)
    except _CONVERSION_ERRORS:
        return field or pa.field(name, pa.string())


def _nullable(field: pa.Field) -> pa.Field:
    """The field as nullable; a column that has nothing but nulls becomes text."""
    if pa.types.is_null(field.type):
        return pa.field(field.name, pa.string())
    if pa.types.is_list(field.type) and pa.types.is_null(field.type.value_type):
        return pa.field(field.name, pa.list_(pa.string()))
    return field.with_nullable(True)


def _check_columns(schema: pa.Schema, columns: Columns) -> None:
    names = schema.names
    existing = f"its columns are: {', '.join(names) or 'none'}"
    if columns.query not in names:
        raise DataError(f"the input has no column {columns.query!r} for the query; {existing}")
    if (columns.passage in names) == (columns.candidates in names):
        which = "both" if columns.passage in names else "neither"
        raise DataError(
            f"the input must have either {columns.passage!r} (one passage per row) or"
            f" {columns.candidates!r} (a list of passages per row); it has {which}; {existing}"
        )
    scored = ("scores", "logits") if columns.candidates in names else ("score", "logit")
    for name in (*scored, "error"):
        if columns.prefix + name in names:
            raise DataError(
                f"the input already has a column {columns.prefix + name!r}; set a prefix for the"
                " output columns"
            )

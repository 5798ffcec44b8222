"""Reading the rows of a part, a slice at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpurerank.errors import DataError
from gpurerank.offline.input_files import Part, SourceFile, opened
from gpurerank.offline.score_job import Columns

# Rows held at a time: enough to fill batches, little enough for any memory.
SLICE = 512
# Of each JSON lines file, to know its columns by.
_LOOKED_AT = 200
_LONGEST_LINE = 64 << 20
# What Arrow raises for a value that a column cannot hold, half of a surrogate pair included.
_UNFIT = (ValueError, TypeError, OverflowError)


def schema_of(files: Sequence[SourceFile], columns: Columns) -> pa.Schema:
    """The columns of the input; of JSON lines, those that its first lines have.

    Raises:
        DataError: A column that is needed is not there, one of the output's is there already, or
            files differ.
    """
    parquet = files[0].rows is not None
    schemas = [_parquet_schema(f.path) if parquet else _json_schema(f.path) for f in files]
    try:
        # Of JSON lines what one file leaves out another may have.
        merged = pa.unify_schemas(schemas, promote_options="default" if parquet else "permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"the files differ in a column: {error}") from error
    schema = pa.schema([_usable(field) for field in merged])
    _check(schema, columns)
    return schema


def passages_column(schema: pa.Schema, columns: Columns) -> str:
    """The column that has what is scored."""
    many = columns.candidates in schema.names
    return columns.candidates if many else columns.passage


def slices(part: Part, schema: pa.Schema) -> Iterator[tuple[pa.Table, list[str | None]]]:
    """The rows of a part with what was wrong in reading each, if anything."""
    system, path = opened(part.path)
    with system.open_input_file(path) as file:
        if path.lower().endswith((".parquet", ".pq")):
            for table in _parquet_slices(file, part, schema):
                yield table, [None] * table.num_rows
        else:
            yield from _json_slices(file, part, schema)


def _parquet_slices(file: Any, part: Part, schema: pa.Schema) -> Iterator[pa.Table]:
    parquet = pq.ParquetFile(file)
    first = 0
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        if first < part.stop and first + count > part.start:
            place = first
            for batch in parquet.iter_batches(SLICE, row_groups=[group]):
                start, stop = max(part.start - place, 0), min(part.stop - place, batch.num_rows)
                if start < stop:
                    yield _cast(pa.table(batch.slice(start, stop - start)), schema)
                place += batch.num_rows
        first += count


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    absent = [field for field in schema if field.name not in table.schema.names]
    for field in absent:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def _json_slices(
    file: Any, part: Part, schema: pa.Schema
) -> Iterator[tuple[pa.Table, list[str | None]]]:
    lines = _lines(file, part)
    while batch := list(islice(lines, SLICE)):
        yield _table([_parsed(*line) for line in batch], schema)


def _lines(file: Any, part: Part) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in a part, and where; blank ones left out, one too long is not whole."""
    reader = io.BufferedReader(file, 1 << 20)
    if part.start:
        # From the byte before, or a line that begins right at the start would be skipped.
        reader.seek(part.start - 1)
        _rest(reader)
    while (start := reader.tell()) < part.stop:
        line = reader.readline(_LONGEST_LINE)
        if len(line) == _LONGEST_LINE:
            _rest(reader)
        if line.strip():
            yield start, line
    reader.detach()


def _rest(reader: io.BufferedReader) -> None:
    """Reads to the end of the line."""
    while (piece := reader.readline(1 << 20)) and not piece.endswith(b"\n"):
        pass


def _parsed(start: int, line: bytes) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with it and where; none of its text."""
    where = f"the line at byte {start:,}"
    if len(line) == _LONGEST_LINE:
        return f"{where} is longer than {_LONGEST_LINE:,} bytes"
    try:
        found = json.loads(line)
    except RecursionError:
        return f"{where} is nested too deep"
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8"
        return f"{where} is not JSON: {reason}"
    if not isinstance(found, dict):
        return f"{where} is {type(found).__name__}, not a JSON object"
    return found


def _table(
    rows: list[dict[str, Any] | str], schema: pa.Schema
) -> tuple[pa.Table, list[str | None]]:
    errors = [row if isinstance(row, str) else None for row in rows]
    objects = [{} if isinstance(row, str) else row for row in rows]
    arrays = []
    for field in schema:
        values = [row.get(field.name) for row in objects]
        try:
            arrays.append(pa.array(values, field.type))
        except _UNFIT:
            arrays.append(pa.array(_fitting(values, field, errors), field.type))
    return pa.table(arrays, schema=schema), errors


def _fitting(values: list[Any], field: pa.Field, errors: list[str | None]) -> list[Any]:
    """The values, None in place of those that are of another type, which are noted."""
    kept = []
    for row, value in enumerate(values):
        try:
            pa.array([value], field.type)
            kept.append(value)
        except _UNFIT:
            kept.append(None)
            errors[row] = errors[row] or f"{field.name} is {type(value).__name__}, not {field.type}"
    return kept


def _parquet_schema(path: str) -> pa.Schema:
    system, inside = opened(path)
    with system.open_input_file(inside) as file:
        return pq.read_schema(file).remove_metadata()


def _json_schema(path: str) -> pa.Schema:
    system, inside = opened(path)
    fields: dict[str, pa.Field] = {}
    with system.open_input_file(inside) as file:
        for start, line in islice(_lines(file, Part(0, path, 0, file.size())), _LOOKED_AT):
            found = _parsed(start, line)
            for name, value in {} if isinstance(found, str) else found.items():
                fields[name] = _widened(fields.get(name), name, value)
    return pa.schema(fields.values())


def _widened(known: pa.Field | None, name: str, value: Any) -> pa.Field:
    try:
        field = pa.field(name, pa.array([value]).type)
        if known is None or pa.types.is_null(known.type):
            return field
        both = [pa.schema([known]), pa.schema([field])]
        return pa.unify_schemas(both, promote_options="permissive").field(0)
    except _UNFIT:
        return known or pa.field(name, pa.string())


def _usable(field: pa.Field) -> pa.Field:
    """The field with what only ever was null as text; any row may have null."""
    if pa.types.is_null(field.type):
        return pa.field(field.name, pa.string())
    if pa.types.is_list(field.type) and pa.types.is_null(field.type.value_type):
        return pa.field(field.name, pa.list_(pa.string()))
    return field.with_nullable(True)


def _check(schema: pa.Schema, columns: Columns) -> None:
    names = schema.names
    there = ", ".join(names) or "none"
    if columns.query not in names:
        raise DataError(f"there is no column {columns.query!r} for the query; there is {there}")
    if (columns.passage in names) == (columns.candidates in names):
        which = "both" if columns.passage in names else "neither"
        raise DataError(
            f"the input must have a column {columns.passage!r} with a text or"
            f" {columns.candidates!r} with a list; there is {which}: {there}"
        )
    scored = ("scores", "logits") if columns.candidates in names else ("score", "logit")
    for name in (*scored, "error"):
        if columns.prefix + name in names:
            raise DataError(
                f"the input has a column {columns.prefix + name!r} already; give the new ones a"
                " prefix"
            )

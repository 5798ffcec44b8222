"""Input files, local or remote, and the parts that they are cut into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from gpurerank.errors import DataError, InputError

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson", ".json")
# An interruption loses at most the part in progress: a hundredth of the input, unless that would
# make files too small to be worth opening or too large to be repeated.
_TARGET_PARTS = 100
_MIN_ROWS, _MAX_ROWS = 256, 50_000
_BYTES_PER_JSON_ROW = 1_000


@dataclass(frozen=True, slots=True)
class Part:
    """A range of rows that is read, scored and written as one unit.

    Attributes:
        number: Position in the input, from 0.
        path: The input file.
        start: First row of a Parquet file, or first byte of a JSON lines file.
        stop: Row or byte after the last.
    """

    number: int
    path: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of the output file."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of the input.

    Attributes:
        path: Path or address to open.
        size: Bytes.
        rows: Rows of a Parquet file; None for JSON lines, whose rows are not counted.
    """

    path: str
    size: int
    rows: int | None

    @property
    def extent(self) -> int:
        """Rows, or bytes where rows are not counted."""
        return self.size if self.rows is None else self.rows


def open_filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """Opens the file system of a path or address.

    Returns:
        The file system, and the path within it.

    Raises:
        InputError: The kind of address is unknown.
    """
    try:
        if "://" in path:
            system, inside = fs.FileSystem.from_uri(path)
            return system, inside
        return fs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    except (pa.ArrowInvalid, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def list_input_files(inputs: Sequence[str]) -> list[InputFile]:
    """Lists the files of the input without duplicates, those of a folder by name.

    Raises:
        DataError: A path does not exist, a folder has no usable file, or a file is neither Parquet
            nor JSON lines, or both kinds are mixed.
    """
    files: dict[str, InputFile] = {}
    for path in inputs:
        for file in _files_at(path):
            files.setdefault(file.path, file)
    if len({file.rows is None for file in files.values()}) > 1:
        raise DataError("the input has both Parquet and JSON lines; score them one after the other")
    return list(files.values())


def cut_into_parts(files: Sequence[InputFile], rows_per_part: int | None) -> list[Part]:
    """Cuts files into parts; the same files always give the same parts.

    Args:
        files: Files of one kind.
        rows_per_part: Rows per part, approximate for JSON lines; None for a hundredth of the input,
            within limits.
    """
    parts: list[Part] = []
    total = sum(file.extent for file in files)
    for file in files:
        unit = 1 if file.rows is not None else _BYTES_PER_JSON_ROW
        step = min(_MAX_ROWS * unit, max(_MIN_ROWS * unit, -(-total // _TARGET_PARTS)))
        if rows_per_part is not None:
            step = rows_per_part * unit
        for start in range(0, file.extent, step):
            parts.append(Part(len(parts), file.path, start, min(start + step, file.extent)))
    return parts


def _files_at(path: str) -> Iterator[InputFile]:
    system, inside = open_filesystem(path)
    # Arrow lists paths within a file system; the part before them leads back to addresses.
    prefix = path[: len(path) - len(inside)] if "://" in path and path.endswith(inside) else ""
    (info,) = system.get_file_info([inside])
    if info.type == fs.FileType.NotFound:
        raise DataError(f"{path} does not exist")
    infos = [info]
    if info.type != fs.FileType.File:
        listed = system.get_file_info(fs.FileSelector(inside, recursive=True))
        infos = sorted((i for i in listed if _is_input(i, inside)), key=lambda i: i.path)
        if not infos:
            raise DataError(f"{path} has no {', '.join(PARQUET + JSON_LINES)} file in it")
    for info in infos:
        yield _input_file(system, info, f"{prefix}{info.path}")


def _is_input(info: fs.FileInfo, folder: str) -> bool:
    names = info.path.removeprefix(folder).strip("/").split("/")
    is_hidden = any(name.startswith(("_", ".")) for name in names)
    is_known = info.path.lower().endswith(PARQUET + JSON_LINES)
    return info.type == fs.FileType.File and is_known and not is_hidden


def _input_file(system: fs.FileSystem, info: fs.FileInfo, path: str) -> InputFile:
    if info.path.lower().endswith(JSON_LINES):
        return InputFile(path, info.size, None)
    if not info.path.lower().endswith(PARQUET):
        kinds = f"Parquet ({', '.join(PARQUET)}) or JSON lines ({', '.join(JSON_LINES)})"
        raise DataError(f"{path}: the file must be {kinds}")
    try:
        with system.open_input_file(info.path) as file:
            return InputFile(path, info.size, pq.read_metadata(file).num_rows)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from error

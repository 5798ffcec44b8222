"""Files, local or behind an address, and the parts that they are cut into."""

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
# A hundred parts lose a hundredth of the work where a job stops; these keep them of a good size.
_PARTS = 100
_ROWS = (256, 50_000)
_BYTES_PER_ROW = 1_000


@dataclass(frozen=True, slots=True)
class Part:
    """A run of rows that is read, scored and written as a whole.

    Attributes:
        number: Its place in the input, from 0.
        path: The file.
        start: First row of a Parquet file; first byte of JSON lines.
        stop: Where the next part begins.
    """

    number: int
    path: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The file that it is written to."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the input.

    Attributes:
        path: As it is opened.
        size: In bytes.
        rows: Of a Parquet file; None of JSON lines, which nobody has counted.
    """

    path: str
    size: int
    rows: int | None

    @property
    def extent(self) -> int:
        """Rows, or bytes where rows are not known."""
        return self.size if self.rows is None else self.rows


def opened(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or address, and the path in it.

    Raises:
        InputError: There is no such kind of address.
    """
    try:
        if "://" in path:
            found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(path)
            return found
        return fs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    except (pa.ArrowInvalid, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def list_files(inputs: Sequence[str]) -> list[SourceFile]:
    """The files of the input, by name, each once.

    Raises:
        DataError: One is missing, empty of files, of another kind, or no Parquet inside.
    """
    found: dict[str, SourceFile] = {}
    for path in inputs:
        for file in _files_of(path):
            found.setdefault(file.path, file)
    kinds = {file.rows is None for file in found.values()}
    if len(kinds) > 1:
        raise DataError("the input has both Parquet and JSON lines; score them one after the other")
    return list(found.values())


def cut(files: Sequence[SourceFile], rows_per_part: int | None) -> list[Part]:
    """Cuts files into parts, the same ones for the same files each time."""
    parts: list[Part] = []
    whole = sum(file.extent for file in files)
    for file in files:
        scale = 1 if file.rows is not None else _BYTES_PER_ROW
        least, most = (scale * rows for rows in _ROWS)
        if rows_per_part is not None:
            step = rows_per_part * scale
        else:
            step = min(most, max(least, -(-whole // _PARTS)))
        for start in range(0, file.extent, step):
            stop = min(start + step, file.extent)
            parts.append(Part(len(parts), file.path, start, stop))
    return parts


def _files_of(path: str) -> Iterator[SourceFile]:
    system, inside = opened(path)
    prefix = path[: len(path) - len(inside)] if "://" in path and path.endswith(inside) else ""
    (info,) = system.get_file_info([inside])
    if info.type == fs.FileType.NotFound:
        raise DataError(f"{path} does not exist")
    if info.type == fs.FileType.File:
        infos = [info]
    else:
        selected = system.get_file_info(fs.FileSelector(inside, recursive=True))
        infos = sorted((i for i in selected if _is_input(i, inside)), key=lambda i: i.path)
        if not infos:
            raise DataError(f"{path} has no {', '.join(PARQUET + JSON_LINES)} in it")
    for each in infos:
        yield _source(system, each, f"{prefix}{each.path}")


def _is_input(info: fs.FileInfo, folder: str) -> bool:
    inner = info.path.removeprefix(folder).strip("/").split("/")
    hidden = any(name.startswith(("_", ".")) for name in inner)
    known = info.path.lower().endswith(PARQUET + JSON_LINES)
    return info.type == fs.FileType.File and known and not hidden


def _source(system: fs.FileSystem, info: fs.FileInfo, path: str) -> SourceFile:
    lowered = info.path.lower()
    if lowered.endswith(JSON_LINES):
        return SourceFile(path, info.size, None)
    if not lowered.endswith(PARQUET):
        raise DataError(f"{path} is neither Parquet ({', '.join(PARQUET)}) nor JSON lines (.jsonl)")
    try:
        with system.open_input_file(info.path) as file:
            return SourceFile(path, info.size, pq.read_metadata(file).num_rows)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet file: {error}") from error

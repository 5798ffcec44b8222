"""The folder that a job writes: a file a part, each there as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from gpurerank.errors import DataError, InputError, ScoringError
from gpurerank.offline.input_files import Part, SourceFile, opened
from gpurerank.offline.row_scoring import Counts
from gpurerank.offline.score_job import ScoreJob

_ABOUT = "_job.json"
_COUNTS = b"gpurerank"
# Hidden, by their first character, from those who read the folder.
_UNFINISHED = ".unfinished"
_LIVES = 3


class Output:
    """The output of a job.

    Args:
        path: The folder.
    """

    def __init__(self, path: str) -> None:
        self._system, self._folder = opened(path)
        self._path = path

    def claim(self, about: dict[str, Any]) -> None:
        """Makes the folder, or finds that it is of this very job.

        Args:
            about: What the job is made of; see ``description``.

        Raises:
            InputError: The folder holds something else.
        """
        described = json.dumps(about, indent=1, sort_keys=True)
        if self._exists(_ABOUT):
            with self._system.open_input_file(self._inside(_ABOUT)) as file:
                before = json.loads(file.read())
            if before != json.loads(described):
                differ = ", ".join(sorted(k for k in {*before, *about} if _other(before, about, k)))
                raise InputError(
                    f"{self._path} was begun with other {differ}: give another output, or the same"
                    " input, model and columns to go on"
                )
            return
        if self._names():
            raise InputError(f"{self._path} is not empty and no job's: give another output")
        self._system.create_dir(self._folder, recursive=True)
        self._write(_ABOUT, described.encode())

    def done(self, parts: Iterable[Part]) -> dict[int, Counts]:
        """What is written of the parts, by number; half-written files are removed.

        Raises:
            DataError: A file cannot be read.
        """
        names = self._names()
        for name in names:
            if name.endswith(_UNFINISHED):
                self._system.delete_file(self._inside(name))
        return {part.number: self._counts(part) for part in parts if part.name in names}

    def writing(self, part: Part, schema: pa.Schema) -> PartWriter:
        """A writer of a part.

        Raises:
            ScoringError: Since ``done`` was called the part has ended every process that began it.
        """
        # Ray Data begins a task anew as often as its process dies, and says nothing.
        begun = [self._inside(f".{part.name}.{life}{_UNFINISHED}") for life in range(_LIVES)]
        infos = self._system.get_file_info(begun)
        free = [info.path for info in infos if info.type == fs.FileType.NotFound]
        if not free:
            raise ScoringError(
                f"{part.name} ended its process {_LIVES} times, at {part.path} from {part.start:,};"
                " too little memory is the usual reason: lower max_length, or give replicas more"
            )
        return PartWriter(self._system, free[0], self._inside(part.name), schema)

    def _counts(self, part: Part) -> Counts:
        try:
            with self._system.open_input_file(self._inside(part.name)) as file:
                metadata = pq.read_metadata(file).metadata or {}
        except pa.ArrowInvalid as error:
            raise DataError(f"{part.name} in {self._path} is broken; delete it: {error}") from error
        return Counts(**json.loads(metadata.get(_COUNTS, b"{}")))

    def _names(self) -> set[str]:
        selector = fs.FileSelector(self._folder, allow_not_found=True)
        return {info.base_name for info in self._system.get_file_info(selector)}

    def _exists(self, name: str) -> bool:
        (info,) = self._system.get_file_info([self._inside(name)])
        return bool(info.type == fs.FileType.File)

    def _inside(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    def _write(self, name: str, content: bytes) -> None:
        with self._system.open_output_stream(self._inside(name)) as file:
            file.write(content)


class PartWriter:
    """Writes a part to a file that takes its name when it is whole; a context manager."""

    def __init__(
        self, system: fs.FileSystem, unfinished: str, path: str, schema: pa.Schema
    ) -> None:
        self._system = system
        self._path = path
        self._unfinished = unfinished
        self._file = system.open_output_stream(unfinished)
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        self.counts = Counts()

    def write(self, table: pa.Table, counts: Counts) -> None:
        """Adds rows."""
        self._writer.write_table(table)
        self.counts += counts

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._writer.add_key_value_metadata({_COUNTS: json.dumps(asdict(self.counts))})
        self._writer.close()
        self._file.close()
        if kind is None:
            self._system.move(self._unfinished, self._path)
        else:
            self._system.delete_file(self._unfinished)


def description(job: ScoreJob, files: list[SourceFile], parts: list[Part]) -> dict[str, Any]:
    """What decides the output: a job that differs in it may not go on in its place."""
    model = asdict(job.model)
    for name in ("cache", "base_url", "api_key", "on_error", "timeout_s", "device"):
        del model[name]
    cuts = json.dumps([asdict(part) for part in parts]).encode()
    return {
        "files": [asdict(file) for file in files],
        "parts": {"count": len(parts), "sha256": hashlib.sha256(cuts).hexdigest()},
        "columns": asdict(job.columns),
        "model": model,
    }


def _other(before: dict[str, Any], now: dict[str, Any], key: str) -> bool:
    return bool(before.get(key) != json.loads(json.dumps(now.get(key))))

"""The output folder of a job: one file per part, each complete or absent."""

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
from gpurerank.offline.input_files import InputFile, Part, open_filesystem
from gpurerank.offline.row_scoring import Counts
from gpurerank.offline.score_job import ScoreJob

_DESCRIPTION_FILE = "_job.json"
_COUNTS_KEY = b"gpurerank"
# Unfinished files begin with a dot as well: readers of a Parquet folder skip those.
_UNFINISHED = ".unfinished"
_MAX_ATTEMPTS = 3


class OutputFolder:
    """The output folder of a job, local or remote.

    Args:
        path: Path or address of the folder.
    """

    def __init__(self, path: str) -> None:
        self._system, self._folder = open_filesystem(path)
        self._path = path

    def claim(self, description: dict[str, Any]) -> None:
        """Creates the folder, or checks that it belongs to the same job.

        Args:
            description: What decides the output, from ``describe_job``.

        Raises:
            InputError: The folder holds anything else.
        """
        text = json.dumps(description, indent=1, sort_keys=True)
        current, names = json.loads(text), self._names()
        if _DESCRIPTION_FILE in names:
            with self._system.open_input_file(self._inside(_DESCRIPTION_FILE)) as file:
                recorded = json.loads(file.read())
            keys = sorted({*recorded, *current})
            changed = [key for key in keys if recorded.get(key) != current.get(key)]
            if changed:
                raise InputError(
                    f"{self._path} holds the output of a job with other {', '.join(changed)}: give"
                    " another output folder, or the same input, model and columns to continue"
                )
            return
        if names:
            raise InputError(
                f"{self._path} is not empty and holds no output of a job: give another output"
                " folder"
            )
        self._system.create_dir(self._folder, recursive=True)
        with self._system.open_output_stream(self._inside(_DESCRIPTION_FILE)) as file:
            file.write(text.encode())

    def finished_parts(self, parts: Iterable[Part]) -> dict[int, Counts]:
        """Reads the counts of the parts that are written, by number; deletes unfinished files.

        Raises:
            DataError: A file of a part is damaged.
        """
        names = self._names()
        for name in names:
            if name.endswith(_UNFINISHED):
                self._system.delete_file(self._inside(name))
        return {part.number: self._read_counts(part) for part in parts if part.name in names}

    def open_part(self, part: Part, schema: pa.Schema) -> PartWriter:
        """Opens a writer for a part.

        Raises:
            ScoringError: Every process that started the part ended in it.
        """
        # Ray Data restarts the task of a dead process without limit, so attempts are counted here:
        # each one leaves its own unfinished file until ``finished_parts`` deletes them.
        paths = [self._inside(f".{part.name}.{n}{_UNFINISHED}") for n in range(_MAX_ATTEMPTS)]
        infos = self._system.get_file_info(paths)
        unused = [info.path for info in infos if info.type == fs.FileType.NotFound]
        if not unused:
            raise ScoringError(
                f"{part.name} ended its process {_MAX_ATTEMPTS} times; it begins at {part.start:,}"
                f" in {part.path}. The usual reason is too little memory: lower max_length, or give"
                " each replica more memory"
            )
        return PartWriter(self._system, unused[0], self._inside(part.name), schema)

    def _read_counts(self, part: Part) -> Counts:
        try:
            with self._system.open_input_file(self._inside(part.name)) as file:
                metadata = pq.read_metadata(file).metadata or {}
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{part.name} in {self._path} is damaged; delete it to score it again: {error}"
            ) from error
        return Counts(**json.loads(metadata.get(_COUNTS_KEY, b"{}")))

    def _names(self) -> set[str]:
        selector = fs.FileSelector(self._folder, allow_not_found=True)
        try:
            return {info.base_name for info in self._system.get_file_info(selector)}
        except NotADirectoryError as error:
            raise InputError(f"{self._path} is a file: give an output folder") from error

    def _inside(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"


class PartWriter:
    """A context manager that writes a part; the file gets its name once it is complete.

    Args:
        system: File system of the output.
        unfinished: Path while the part is written.
        path: Path of the complete file.
        schema: Columns of the output.
    """

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
        """Appends rows."""
        self._writer.write_table(table)
        self.counts += counts

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._writer.add_key_value_metadata({_COUNTS_KEY: json.dumps(asdict(self.counts))})
        self._writer.close()
        self._file.close()
        if kind is None:
            self._system.move(self._unfinished, self._path)
        else:
            self._system.delete_file(self._unfinished)


def describe_job(job: ScoreJob, files: list[InputFile], parts: list[Part]) -> dict[str, Any]:
    """Describes what decides the output; another job must not continue in the same folder."""
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

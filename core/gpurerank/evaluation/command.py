"""``gpurerank eval``: reads a folder, compares, shows and writes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gpurerank.bi_encoder import BiEncoder
from gpurerank.calls import calling
from gpurerank.collection import Collection
from gpurerank.errors import DataError, InputError
from gpurerank.evaluation.contenders import parse
from gpurerank.evaluation.display import shown_progress
from gpurerank.evaluation.first_stage import bm25, nearest, read_run
from gpurerank.evaluation.known import Say
from gpurerank.evaluation.options import EvalOptions
from gpurerank.evaluation.page import write_page
from gpurerank.evaluation.queries import QuerySet, sample
from gpurerank.evaluation.records import Evaluation
from gpurerank.evaluation.run import evaluate
from gpurerank.evaluation.tables import fault_lines, render
from gpurerank.lexical import check_language

WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Everything that the command line asks for; see ``gpurerank eval --help``."""

    folder: Path
    split: str
    run: Path | None
    first_stage: str
    language: str
    contenders: tuple[str, ...]
    queries: int | None
    output: Path
    options: EvalOptions

    def check(self) -> None:
        """Checks what can be checked before any work.

        Raises:
            InputError: An option is wrong.
            DataError: The output folder cannot be written.
        """
        self.options.check()
        for spec in self.contenders:
            parse(spec, self.options.model)
        if self.first_stage not in ("bm25", "bi-encoder"):
            raise InputError(
                f"--first-stage is {self.first_stage!r}; it must be 'bm25' or 'bi-encoder'"
            )
        check_language(self.language)
        if self.run is not None and self.first_stage != "bm25":
            raise InputError("--run brings its own candidates; leave --first-stage out")
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"the output folder {self.output} cannot be made: {error}") from error


def run(asked: Asked, out: Console, err: Console) -> Evaluation:
    """Compares, prints the tables to ``out`` and all else to ``err``, and writes the report.

    Raises:
        InputError: An option is wrong, or the folder holds nothing usable.
        ModelError: A model cannot be loaded.
        KeyboardInterrupt: Before anything was finished.
    """
    asked.check()
    with shown_progress(err) as say:
        say("reading", 0, 0)
        collection = Collection.read(asked.folder, asked.split)
        queries = _first_stage(asked, collection, say).without_empty()
        if queries.faults:
            err.print(fault_lines(queries.faults), soft_wrap=True)
        found = evaluate(queries, asked.contenders, asked.options, say=say)
    found.settings |= {"split": asked.split, "queries": str(asked.queries or "all")}
    if asked.run is None and asked.first_stage == "bm25":
        found.settings["language"] = asked.language
    _show(found, out)
    for path in _write(found, asked.output):
        out.print(f"written: {escape(str(path))}", soft_wrap=True)
    return found


def _first_stage(asked: Asked, collection: Collection, say: Say) -> QuerySet:
    options = asked.options
    depth = options.all_depths[-1]
    ids = sample(collection, asked.queries, options.seed)
    if asked.run is not None:
        found, faults = read_run(asked.run, collection, ids)
        return QuerySet.from_found(
            collection, found, first_stage=asked.run.name, depth=depth, faults=faults
        )
    if asked.first_stage == "bm25":
        say("BM25", 0, 0)
        found = bm25(collection, ids, depth, asked.language)
        return QuerySet.from_found(collection, found, first_stage="BM25", depth=depth)
    say("embedding documents", 0, len(collection.documents))
    with (
        calling(on_progress=lambda done, total: say("embedding documents", done, total)),
        closing(BiEncoder(device=options.device, dtype=options.dtype)) as encoder,
    ):
        found = nearest(collection, ids, depth, encoder)
    return QuerySet.from_found(collection, found, first_stage="bi-encoder", depth=depth)


def _show(found: Evaluation, out: Console) -> None:
    narrow = Console(
        file=out.file, width=min(out.width, WIDTH) if out.is_terminal else WIDTH, highlight=False
    )
    for part in render(found):
        narrow.print(part)


def _write(found: Evaluation, folder: Path) -> list[Path]:
    stamp = found.created_at[:19].replace(":", "").replace("-", "")
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in found.name).strip("-.") or "eval"
    stem = f"{name}-{stamp}"
    json_path, page_path = folder / f"{stem}.json", folder / f"{stem}.html"
    json_path.write_text(found.to_json() + "\n", encoding="utf-8")
    write_page(found, page_path)
    return [page_path, json_path]

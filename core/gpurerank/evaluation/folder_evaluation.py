"""Evaluation of a folder of BEIR files: what ``gpurerank eval`` does."""

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
from gpurerank.evaluation.contender_specs import parse_contender
from gpurerank.evaluation.eval_options import EvalOptions
from gpurerank.evaluation.evaluation_result import Evaluation
from gpurerank.evaluation.evaluator import evaluate
from gpurerank.evaluation.first_stage import read_trec_run, search_bi_encoder, search_bm25
from gpurerank.evaluation.html_report import write_page
from gpurerank.evaluation.progress_display import displayed_progress
from gpurerank.evaluation.query_set import QuerySet, sample_query_ids
from gpurerank.evaluation.replay import ProgressCallback
from gpurerank.evaluation.terminal_report import data_issue_lines, render_tables
from gpurerank.lexical import check_language

REPORT_COLUMNS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderEvaluation:
    """The arguments of ``gpurerank eval``.

    Attributes:
        folder: Has corpus.jsonl, queries.jsonl and qrels/<split>.tsv.
        split: Name of the qrels file, without ".tsv".
        run: TREC run file with the candidates; None to retrieve them here.
        first_stage: "bm25" or "bi-encoder"; not used with ``run``.
        language: Of BM25's stop words and stemmer; see ``LexicalIndex``.
        contenders: Specifications; empty for the default ones.
        queries: Number of queries drawn at random; None for all.
        output: Folder for the HTML report and the JSON file; created if needed.
        options: Of the comparison.
    """

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
        """Checks what can be checked before any work, and creates the output folder.

        Raises:
            InputError: An option is invalid.
            DataError: The output folder cannot be created.
        """
        self.options.check()
        # Parsed here only for the error: loading the collection may take minutes.
        for spec in self.contenders:
            parse_contender(spec, self.options.model)
        if self.first_stage not in ("bm25", "bi-encoder"):
            raise InputError(
                f"--first-stage is {self.first_stage!r}; it must be 'bm25' or 'bi-encoder'"
            )
        check_language(self.language)
        if self.run is not None and self.first_stage != "bm25":
            raise InputError("--run has its own candidates; leave --first-stage out")
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"the output folder {self.output} cannot be created: {error}"
            ) from error


def evaluate_folder(arguments: FolderEvaluation, out: Console, err: Console) -> Evaluation:
    """Compares contenders, prints tables and writes the report.

    Args:
        arguments: Of the command line.
        out: Receives the tables and the paths of the files.
        err: Receives the progress and the problems in the data.

    Raises:
        InputError: An option is invalid.
        DataError: The folder has nothing usable, or the output folder cannot be created.
        ModelError: A model cannot be loaded.
        KeyboardInterrupt: Interrupted before any query was finished.
    """
    arguments.check()
    with displayed_progress(err) as on_progress:
        on_progress("reading", 0, 0)
        collection = Collection.read(arguments.folder, arguments.split)
        queries = _retrieve(arguments, collection, on_progress).with_empty_queries_reported()
        if queries.faults:
            err.print(data_issue_lines(queries.faults), soft_wrap=True)
        result = evaluate(queries, arguments.contenders, arguments.options, on_progress=on_progress)
    # The settings of the collection, which ``evaluate`` does not know.
    result.settings |= {"split": arguments.split, "queries": str(arguments.queries or "all")}
    if arguments.run is None and arguments.first_stage == "bm25":
        result.settings["language"] = arguments.language
    _print_tables(result, out)
    for path in _write_files(result, arguments.output):
        out.print(f"written: {escape(str(path))}", soft_wrap=True)
    return result


def _retrieve(
    arguments: FolderEvaluation, collection: Collection, on_progress: ProgressCallback
) -> QuerySet:
    options = arguments.options
    # One retrieval serves all depths: a smaller depth is a prefix of the candidates.
    depth = options.all_depths[-1]
    ids = sample_query_ids(collection, arguments.queries, options.seed)
    if arguments.run is not None:
        candidates, faults = read_trec_run(arguments.run, collection, ids)
        return QuerySet.from_candidate_ids(
            collection, candidates, first_stage=arguments.run.name, depth=depth, faults=faults
        )
    if arguments.first_stage == "bm25":
        on_progress("BM25", 0, 0)
        candidates = search_bm25(collection, ids, depth, arguments.language)
        return QuerySet.from_candidate_ids(collection, candidates, first_stage="BM25", depth=depth)
    work = "embedding documents"
    on_progress(work, 0, len(collection.documents))
    with (
        calling(on_progress=lambda done, total: on_progress(work, done, total)),
        closing(BiEncoder(device=options.device, dtype=options.dtype)) as encoder,
    ):
        candidates = search_bi_encoder(collection, ids, depth, encoder)
    return QuerySet.from_candidate_ids(
        collection, candidates, first_stage="bi-encoder", depth=depth
    )


def _print_tables(result: Evaluation, out: Console) -> None:
    # Files and pipes get the full width: rich would assume 80 columns for them.
    width = min(out.width, REPORT_COLUMNS) if out.is_terminal else REPORT_COLUMNS
    console = Console(file=out.file, width=width, highlight=False)
    for part in render_tables(result):
        console.print(part)


def _write_files(result: Evaluation, folder: Path) -> list[Path]:
    stamp = result.created_at[:19].replace(":", "").replace("-", "")
    # The name comes from the data: "../x" must stay a file of this folder.
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in result.name).strip("-.")
    stem = f"{name or 'eval'}-{stamp}"
    json_path, page_path = folder / f"{stem}.json", folder / f"{stem}.html"
    json_path.write_text(result.to_json() + "\n", encoding="utf-8")
    write_page(result, page_path)
    return [page_path, json_path]

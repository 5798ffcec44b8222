"""Running a job on this machine, part after part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from gpurerank.errors import DataError
from gpurerank.offline.input_files import Part, cut, list_files
from gpurerank.offline.output_folder import Output, description
from gpurerank.offline.row_reader import schema_of, slices
from gpurerank.offline.row_scoring import Counts, PairsScorer, output_schema, scored
from gpurerank.offline.score_job import ScoreJob
from gpurerank.reranker import Reranker


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands.

    Attributes:
        parts: In all.
        done: Of them, those of earlier runs included.
        counts: What is in them.
        new: What this run has done of that.
    """

    parts: int
    done: int
    counts: Counts
    new: Counts


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a job.

    Attributes:
        output: The folder.
        counts: Of the whole output.
        new: Of this run.
        parts: Files written in all.
        seconds: That this run took, loading included.
    """

    output: str
    counts: Counts
    new: Counts
    parts: int
    seconds: float


# Scores parts, in any order, and tells the counts of each as it is written.
Executor = Callable[["Prepared", list[Part]], Iterable[tuple[Part, Counts]]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job with its input looked at; small, and may travel to another process.

    Attributes:
        job: What was asked.
        schema: Columns of the input.
    """

    job: ScoreJob
    schema: pa.Schema

    def score(self, part: Part, scorer: PairsScorer) -> Counts:
        """Reads, scores and writes one part."""
        columns = self.job.columns
        output = Output(self.job.output)
        with output.writing(part, output_schema(self.schema, columns)) as writer:
            for table, errors in slices(part, self.schema):
                writer.write(*scored(table, errors, columns, scorer))
        return writer.counts


def score_files(
    job: ScoreJob,
    *,
    executor: Executor | None = None,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Report:
    """Scores files of pairs; what an earlier run of the same job has written is not done again.

    Args:
        job: What to score and where to.
        executor: What works through the parts: None is a model in this process; ``on_ray`` of
            ``gpurerank.cluster.job`` makes one for a cluster.
        tell: Called at the start and after each part.

    Raises:
        InputError: An option is wrong, or the output holds something else.
        DataError: The input is missing, broken, or without a column that is needed.
        GPURerankError: The model failed in a way that no row is the cause of; what is written
            stays, and the same call goes on.
    """
    started = time.monotonic()
    job = job.checked()
    files = list_files(job.inputs)
    schema = schema_of(files, job.columns)
    parts = cut(files, job.rows_per_part)
    if not parts:
        raise DataError("the input has no rows")
    output = Output(job.output)
    output.claim(description(job, files, parts))
    done = output.done(parts)
    before = sum(done.values(), Counts())
    new = Counts()
    tell(Progress(len(parts), len(done), before, new))
    todo = [part for part in parts if part.number not in done]
    if todo:
        finished = len(done)
        for _, counts in (executor or in_this_process)(Prepared(job, schema), todo):
            new, finished = new + counts, finished + 1
            tell(Progress(len(parts), finished, before + new, new))
    return Report(job.output, before + new, new, len(parts), time.monotonic() - started)


def in_this_process(prepared: Prepared, parts: list[Part]) -> Iterator[tuple[Part, Counts]]:
    """Scores parts with a model in this process."""
    with Reranker.from_options(prepared.job.model) as reranker:
        for part in parts:
            yield part, prepared.score(part, reranker)

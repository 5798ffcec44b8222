"""Running of an offline scoring job, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from gpurerank.errors import DataError
from gpurerank.offline.input_files import Part, cut_into_parts, list_input_files
from gpurerank.offline.output_folder import OutputFolder, describe_job
from gpurerank.offline.row_reader import read_schema, read_slices
from gpurerank.offline.row_scoring import Counts, output_schema, score_table
from gpurerank.offline.score_job import ScoreJob
from gpurerank.reranker import Reranker
from gpurerank.types import PairScorer


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Progress of a job.

    Attributes:
        parts: Number of parts.
        finished: Finished parts, those of earlier runs included.
        counts: Counts of the finished parts.
        new: Counts of this run.
    """

    parts: int
    finished: int
    counts: Counts
    new: Counts


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """Result of a job.

    Attributes:
        output: The output folder.
        counts: Counts of the whole output.
        new: Counts of this run.
        parts: Number of output files.
        seconds: Duration of this run, loading included.
    """

    output: str
    counts: Counts
    new: Counts
    parts: int
    seconds: float


# Scores parts in any order, and yields each with its counts once it is written.
Executor = Callable[["PreparedJob", list[Part]], Iterable[tuple[Part, Counts]]]


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job whose input was inspected; small enough to be sent to other processes.

    Attributes:
        job: The job.
        schema: Columns of the input.
    """

    job: ScoreJob
    schema: pa.Schema

    def score_part(self, part: Part, scorer: PairScorer) -> Counts:
        """Reads, scores and writes one part."""
        columns = self.job.columns
        folder = OutputFolder(self.job.output)
        with folder.open_part(part, output_schema(self.schema, columns)) as writer:
            for table, errors in read_slices(part, self.schema):
                writer.write(*score_table(table, errors, columns, scorer))
        return writer.counts


def score_files(
    job: ScoreJob,
    *,
    executor: Executor | None = None,
    on_progress: Callable[[JobProgress], None] = lambda progress: None,
) -> ScoreReport:
    """Scores files of pairs; parts that an earlier run of the same job wrote are kept.

    Args:
        job: Input, output and model.
        executor: Scores the parts. None loads the model in this process; ``on_ray`` of
            ``gpurerank.cluster.job`` makes one for a cluster.
        on_progress: Called at the start and after each part.

    Raises:
        InputError: An option is wrong, or the output folder holds something else.
        DataError: The input is missing, damaged, or lacks a column.
        GPURerankError: The model failed and no row caused it. What is written stays, and the same
            call continues.
    """
    started = time.monotonic()
    job.check()
    # An error must be seen: with "keep_order" the input order would be written as scores.
    job = replace(job, inputs=tuple(job.inputs), model=replace(job.model, on_error="raise"))
    files = list_input_files(job.inputs)
    schema = read_schema(files, job.columns)
    parts = cut_into_parts(files, job.rows_per_part)
    if not parts:
        raise DataError("the input has no rows")
    folder = OutputFolder(job.output)
    folder.claim(describe_job(job, files, parts))
    earlier = folder.finished_parts(parts)
    counts, new = sum(earlier.values(), Counts()), Counts()
    on_progress(JobProgress(len(parts), len(earlier), counts, new))
    remaining = [part for part in parts if part.number not in earlier]
    if remaining:
        results = (executor or score_in_process)(PreparedJob(job, schema), remaining)
        for finished, (_, part_counts) in enumerate(results, len(earlier) + 1):
            counts, new = counts + part_counts, new + part_counts
            on_progress(JobProgress(len(parts), finished, counts, new))
    return ScoreReport(job.output, counts, new, len(parts), time.monotonic() - started)


def score_in_process(prepared: PreparedJob, parts: list[Part]) -> Iterator[tuple[Part, Counts]]:
    """Scores parts with a model in this process."""
    with Reranker.from_options(prepared.job.model) as reranker:
        for part in parts:
            yield part, prepared.score_part(part, reranker)

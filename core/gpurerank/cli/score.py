"""``gpurerank score``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device, Dtype, Model, refuse_given
from gpurerank.errors import InputError
from gpurerank.reranker_options import RerankerOptions

if TYPE_CHECKING:
    from gpurerank.offline.job_runner import Executor, Report
    from gpurerank.offline.job_runner import Progress as Done

_RAY_OPTIONS = ("replicas", "num_cpus", "num_gpus", "ray_address")


def score(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Option("--input", "-i", help="Parquet or JSON lines: a file or folder; repeatable."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the scored parts.")],
    model: Model = "embedded",
    query: Annotated[str, typer.Option(help="Column of the query.")] = "query",
    passage: Annotated[str, typer.Option(help="Column of one passage.")] = "passage",
    candidates: Annotated[str, typer.Option(help="Column of a list of them.")] = "candidates",
    prefix: Annotated[str, typer.Option(help="Before the names of the new columns.")] = "",
    drop_text: Annotated[
        bool, typer.Option("--drop-text", help="Leave query and passages out of the output.")
    ] = False,
    rows_per_part: Annotated[
        int | None, typer.Option(help="Rows a file; else a hundredth of the input.", min=1)
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of a pair.", min=8)] = 512,
    device: Device = "auto",
    dtype: Dtype = "auto",
    on_ray: Annotated[bool, typer.Option("--ray", help="On a Ray cluster.")] = False,
    replicas: Annotated[int, typer.Option(help="Actors on the cluster.", min=1)] = 1,
    num_cpus: Annotated[float, typer.Option(help="Cores of an actor.", min=0)] = 0.5,
    num_gpus: Annotated[
        float | None, typer.Option(help="GPUs of an actor; else 1 where there are any.", min=0)
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help="Of the cluster.")] = None,
) -> None:
    """Score files of (query, passage) or (query, candidates); a second run goes on."""
    try:
        from gpurerank.offline.job_runner import score_files
        from gpurerank.offline.score_job import Columns, ScoreJob
    except ImportError as error:
        raise InputError(
            f"scoring files needs the package {error.name}: pip install 'gpurerank[score]'"
        ) from error
    executor: Executor | None = None
    if on_ray:
        from gpurerank.cluster.connection import Replicas
        from gpurerank.cluster.job import on_ray as executor_on

        wanted = Replicas(count=replicas, num_cpus=num_cpus, num_gpus=num_gpus)
        executor = executor_on(wanted, ray_address)
    else:
        refuse_given(context, _RAY_OPTIONS, "they are for a Ray cluster; add --ray")
    job = ScoreJob(
        inputs=inputs,
        output=output,
        columns=Columns(
            query=query,
            passage=passage,
            candidates=candidates,
            prefix=prefix,
            drop_text=drop_text,
        ),
        model=RerankerOptions(model=model, device=device, dtype=dtype, max_length=max_length),
        rows_per_part=rows_per_part,
    )
    with _shown() as tell:
        report = score_files(job, executor=executor, tell=tell)
    _tell(report)


@contextmanager
def _shown() -> Iterator[Callable[[Done], None]]:
    """A bar on standard error, of parts."""
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} parts"),
        BarColumn(),
        TextColumn("{task.fields[counted]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("", total=None, visible=False, counted="")

        def tell(done: Done) -> None:
            rows, failed = done.counts.rows, done.counts.failed
            counted = f"{rows:,} rows" + (f", {failed:,} with an error" if failed else "")
            progress.update(
                task, total=done.parts, completed=done.done, counted=counted, visible=True
            )

        yield tell


def _tell(report: Report) -> None:
    counts, new = report.counts, report.new
    rate = f", {new.pairs / report.seconds:,.0f} pairs/s with loading" if new.pairs else ""
    earlier = counts.rows - new.rows
    out.print(
        f"{_of(counts.rows, 'row')} in {_of(report.parts, 'part')} in {escape(report.output)};"
        f" this run {new.rows:,}{rate}" + (f", earlier runs {earlier:,}" if earlier else ""),
        soft_wrap=True,
    )
    if counts.failed:
        err.print(
            f"[yellow]without a score: {_of(counts.failed, 'row')}; the column error says why"
            "[/yellow]"
        )


def _of(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

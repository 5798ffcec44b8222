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
from gpurerank.offline.score_job import Columns, ScoreJob
from gpurerank.reranker_options import RerankerOptions

if TYPE_CHECKING:
    from gpurerank.offline.job_runner import Executor, JobProgress, ScoreReport

_COLUMNS = "Columns"
_RAY = "Ray cluster"
_RAY_OPTIONS = ("replicas", "num_cpus", "num_gpus", "ray_address")

Inputs = Annotated[
    list[str],
    typer.Option("--input", "-i", help="Parquet or JSON lines file, or a folder; repeatable."),
]
Output = Annotated[str, typer.Option("--output", "-o", help="Folder for the scored files.")]
MaxLength = Annotated[int, typer.Option(help="Maximum tokens per pair.", min=8)]
RowsPerPart = Annotated[
    int | None,
    typer.Option(help="Rows per output file.", min=1, show_default="a hundredth of the input"),
]
Query = Annotated[str, typer.Option(help="Column with the query.", rich_help_panel=_COLUMNS)]
Passage = Annotated[str, typer.Option(help="Column with one passage.", rich_help_panel=_COLUMNS)]
Candidates = Annotated[
    str, typer.Option(help="Column with a list of passages.", rich_help_panel=_COLUMNS)
]
Prefix = Annotated[
    str, typer.Option(help="Prefix of the output columns.", rich_help_panel=_COLUMNS)
]
DropText = Annotated[
    bool,
    typer.Option("--drop-text", help="Leave out query and passages.", rich_help_panel=_COLUMNS),
]
OnRay = Annotated[bool, typer.Option("--ray", help="Run on Ray.", rich_help_panel=_RAY)]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Cluster address.", rich_help_panel=_RAY, show_default="this machine"),
]
ReplicaCount = Annotated[
    int, typer.Option(help="Copies of the model.", min=1, rich_help_panel=_RAY)
]
NumCpus = Annotated[
    float, typer.Option(help="CPU cores to reserve per replica.", min=0, rich_help_panel=_RAY)
]
NumGpus = Annotated[
    float | None,
    typer.Option(
        help="GPUs to reserve per replica.",
        min=0,
        rich_help_panel=_RAY,
        show_default="1 if there are any",
    ),
]


def score(
    context: typer.Context,
    inputs: Inputs,
    output: Output,
    model: Model = "embedded",
    max_length: MaxLength = 512,
    device: Device = "auto",
    dtype: Dtype = "auto",
    rows_per_part: RowsPerPart = None,
    query: Query = "query",
    passage: Passage = "passage",
    candidates: Candidates = "candidates",
    prefix: Prefix = "",
    drop_text: DropText = False,
    on_ray: OnRay = False,
    ray_address: RayAddress = None,
    replicas: ReplicaCount = 1,
    num_cpus: NumCpus = 0.5,
    num_gpus: NumGpus = None,
) -> None:
    """Score files of (query, passage) or (query, candidates); a second run continues the first."""
    try:
        from gpurerank.offline.job_runner import score_files
    except ImportError as error:
        raise InputError(
            f"scoring files needs the package {error.name}: pip install 'gpurerank[score]'"
        ) from error
    executor = None
    if on_ray:
        executor = _ray_executor(ray_address, replicas, num_cpus, num_gpus)
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
    try:
        with _progress_bar() as on_progress:
            report = score_files(job, executor=executor, on_progress=on_progress)
    except KeyboardInterrupt:
        err.print("stopped; the same command continues with the parts that are not written")
        raise typer.Exit(130) from None
    _print_report(report)


def _ray_executor(
    address: str | None, replicas: int, num_cpus: float, num_gpus: float | None
) -> Executor:
    try:
        from gpurerank.cluster.connection import Replicas
        from gpurerank.cluster.job import on_ray
    except ImportError as error:
        raise InputError(
            f"--ray needs the package {error.name}: pip install 'gpurerank[ray]'"
        ) from error
    return on_ray(Replicas(count=replicas, num_cpus=num_cpus, num_gpus=num_gpus), address)


@contextmanager
def _progress_bar() -> Iterator[Callable[[JobProgress], None]]:
    """Shows finished parts on standard error."""
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} parts"),
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("", total=None, visible=False, rows="")

        def show(progress: JobProgress) -> None:
            failed = progress.counts.failed
            rows = f"{progress.counts.rows:,} rows" + (f", {failed:,} failed" if failed else "")
            bar.update(
                task, total=progress.parts, completed=progress.finished, rows=rows, visible=True
            )

        yield show


def _print_report(report: ScoreReport) -> None:
    counts, new = report.counts, report.new
    rate = f" at {new.pairs / report.seconds:,.0f} pairs/s with loading" if new.pairs else ""
    earlier = counts.rows - new.rows
    out.print(
        f"{_count(counts.rows, 'row')} in {_count(report.parts, 'part')} in"
        f" {escape(report.output)}; this run {new.rows:,}{rate}"
        + (f", earlier runs {earlier:,}" if earlier else ""),
        soft_wrap=True,
    )
    if counts.failed:
        err.print(
            f"[yellow]{_count(counts.failed, 'row')} could not be scored; the column error says"
            " why[/yellow]"
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""``gpurerank bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device, Dtype

MODEL = "Model to measure: 'embedded', a folder or a hub id. Repeat the option for several."
CANDIDATES = "Passages per call, comma-separated."
LENGTHS = "Tokens per pair, comma-separated; 'realistic' mixes passages around 100 words."
ROUNDS = "Maximum rounds per measurement. Default: 20 on a CPU, 50 on a GPU."
LIMIT = "Maximum seconds per measurement; a measurement that needs more is skipped."
OUTPUT = "Folder for the results as JSON and for the latency plots."
QUICK = "Measure 10 and 20 candidates only, in about a minute."


def bench(
    model: Annotated[list[str], Option("--model", "-m", help=MODEL)] = ["embedded"],  # noqa: B006
    candidates: Annotated[str, Option(help=CANDIDATES)] = "10,20,50,100,1000",
    lengths: Annotated[str, Option(help=LENGTHS)] = "realistic",
    rounds: Annotated[int | None, Option(help=ROUNDS, min=1)] = None,
    limit_s: Annotated[float, Option(help=LIMIT, min=0.1)] = 45.0,
    output: Annotated[Path | None, Option("--output", "-o", help=OUTPUT, file_okay=False)] = None,
    quick: Annotated[bool, Option("--quick", help=QUICK)] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Measure latency and throughput of a model on this machine.

    Compares gpurerank with sentence-transformers and with the limit of the hardware.

    Ctrl-C stops the run and keeps the results so far.
    """
    with err.status("loading"):
        from gpurerank.benchmark.bench_options import BenchOptions, parse_numbers
        from gpurerank.benchmark.bench_run import run_bench
    counts = parse_numbers(candidates, "--candidates", 1, 100_000)
    options = BenchOptions(
        models=tuple(model),
        candidates=tuple(sorted(map(int, counts))),
        lengths=parse_numbers(lengths, "--lengths", 16, 512, "realistic"),
        rounds=rounds,
        limit_s=limit_s,
        output=output,
        device=device,
        dtype=dtype,
    )
    if run_bench(options.reduced() if quick else options, out, err).interrupted:
        raise typer.Exit(130)

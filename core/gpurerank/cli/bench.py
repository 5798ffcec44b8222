"""``gpurerank bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpurerank.cli.console import err, out
from gpurerank.cli.options import Device, Dtype


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="'tinybert-l2', 'minilm-l6', 'bge-m3' (random), 'embedded', a hub id, a folder.",
        ),
    ] = None,
    candidates: Annotated[
        str, typer.Option(help="Passages of a call, between commas.")
    ] = "10,20,50,100,1000",
    lengths: Annotated[
        str, typer.Option(help="'realistic' and tokens a pair, between commas.")
    ] = "realistic,128,256,512",
    callers: Annotated[str, typer.Option(help="At the same time, between commas.")] = "1,8,64",
    sections: Annotated[
        str, typer.Option(help="Of latency, concurrency, http, ray, scaling, overhead.")
    ] = "latency,concurrency",
    rounds: Annotated[
        int | None, typer.Option(help="Of a cell at most; 20 on a CPU, 50 on a GPU.")
    ] = None,
    limit_s: Annotated[
        float, typer.Option(help="A cell that takes longer is skipped; a section gets 8 times it.")
    ] = 45.0,
    soak: Annotated[float, typer.Option(help="Seconds of mixed calls at the end.")] = 0.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for JSON and pictures.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small set, about 2 minutes.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Compare with other ways to rerank, in one run, on this machine."""
    from gpurerank.benchmark import options as asked

    options = asked.BenchOptions(
        models=tuple(model or ()),
        candidates=asked.numbers(candidates, "--candidates"),
        lengths=asked.lengths(lengths),
        callers=asked.numbers(callers, "--callers", asked.MOST_CALLERS),
        sections=asked.sections(sections),
        rounds=rounds,
        limit_s=limit_s,
        soak_s=soak,
        output=output,
        quick=quick,
        device=device,
        dtype=dtype,
    )
    options.check()
    with err.status("loading"):
        from gpurerank.benchmark.command import run
    if run(options, out, err).interrupted:
        raise typer.Exit(130)

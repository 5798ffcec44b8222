"""The command line: ``python -m benchmarks COMMAND``, from a clone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer import Argument, Option

from benchmarks.embedded_weights import ship
from benchmarks.manual_collections import build_collections
from benchmarks.peer_run import (
    Measure,
    concurrency,
    http,
    large_calls,
    latency,
    overhead,
    ray,
    run_on_models,
    soak,
)
from gpurerank.benchmark.bench_options import BenchOptions, parse_numbers
from gpurerank.errors import GPURerankError
from gpurerank.models.embedded import DELTA_FILE

out, err = Console(), Console(stderr=True)
app = typer.Typer(
    help="Benchmarks of gpurerank against its peers, load tests, and maintenance tools.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Models = Annotated[
    list[str] | None,
    Option(
        "--model",
        "-m",
        help="Model: 'tinybert-l2', 'minilm-l6' or 'bge-m3' (real sizes, random weights, built on"
        " this machine), 'embedded', a folder or a hub id; repeat it for several."
        " Default: minilm-l6, and on a GPU bge-m3 too.",
    ),
]
Rounds = Annotated[
    int | None,
    Option(help="Maximum rounds per measurement. Default: 20 on a CPU, 50 on a GPU.", min=1),
]
Limit = Annotated[
    float,
    Option(help="Maximum seconds per measurement; one that needs more is skipped.", min=0.1),
]
Output = Annotated[
    Path | None,
    Option("--output", "-o", help="Folder for the JSON file and the plots.", file_okay=False),
]
Device = Annotated[str, Option(help="'auto', 'cpu', 'cuda', 'cuda:1' …")]
Dtype = Annotated[str, Option(help="'auto', 'float32', 'bfloat16' or 'float16'.")]
Candidates = Annotated[str, Option(help="Passages per call, comma-separated.")]
Lengths = Annotated[
    str,
    Option(help="Exact tokens per pair, comma-separated; 'realistic' mixes around 100 words."),
]
Callers = Annotated[str, Option(help="Concurrent callers, comma-separated.")]


@app.command("latency")
def run_latency(
    model: Models = None,
    candidates: Candidates = "10,20,50,100,1000",
    lengths: Lengths = "realistic,128,256,512",
    rounds: Rounds = None,
    limit_s: Limit = 45.0,
    output: Output = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Compare the latency with sentence-transformers (default and tuned), transformers, OpenVINO.

    Ctrl-C stops the run and keeps the results so far.
    """
    options = BenchOptions(
        models=tuple(model or ()),
        candidates=_parse_counts(candidates, "--candidates", 100_000),
        lengths=parse_numbers(lengths, "--lengths", 16, 512, "realistic"),
        rounds=rounds,
        limit_s=limit_s,
        output=output,
        device=device,
        dtype=dtype,
    )
    _run(options, latency)


@app.command("concurrency")
def run_concurrency(
    model: Models = None,
    callers: Callers = "1,8,64",
    rounds: Rounds = None,
    limit_s: Limit = 45.0,
    output: Output = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Measure concurrent callers, and their waits while another caller has a large call."""
    counts = _parse_counts(callers, "--callers", 1_024)
    options = _options(model, rounds, limit_s, output, device, dtype)
    _run(options, concurrency(counts))


@app.command("http")
def run_http(
    model: Models = None,
    rounds: Rounds = None,
    limit_s: Limit = 45.0,
    output: Output = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Measure the HTTP server against threads in one process, and under an overload."""
    _run(_options(model, rounds, limit_s, output, device, dtype), http)


@app.command("ray")
def run_ray(
    model: Models = None,
    rounds: Rounds = None,
    limit_s: Limit = 45.0,
    output: Output = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Measure 20,000 pairs on a pool of Ray actors against one process."""
    _run(_options(model, rounds, limit_s, output, device, dtype), ray)


@app.command("large-calls")
def run_large_calls(
    model: Models = None,
    limit_s: Limit = 45.0,
    output: Output = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Measure the peak memory of large calls, and one call against many."""
    _run(_options(model, None, limit_s, output, device, dtype), large_calls)


@app.command("soak")
def run_soak_test(
    model: Models = None,
    seconds: Annotated[float, Option(help="Seconds to run.", min=0.1)] = 600.0,
    output: Output = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Run mixed calls for a long time; report errors and memory growth."""
    _run(_options(model, None, 45.0, output, device, dtype), soak(seconds))


@app.command("overhead")
def run_overhead(output: Output = None) -> None:
    """Measure what the LangChain and LlamaIndex plugins add to the core."""
    overhead(BenchOptions(output=output), out, err)


@app.command("collections")
def run_collections(
    manuals: Annotated[
        Path, Argument(help="Folder with the unpacked Debian packages; / if they are installed.")
    ],
    descriptions: Annotated[Path, Argument(help="Translation-en.xz of the Debian archive.")],
    output: Annotated[Path, Argument(help="Folder for the collections.")],
) -> None:
    """Build the evaluation collections from manuals; see docs/benchmarks/unseen.md."""
    for name, passages in build_collections(manuals, descriptions, output).items():
        out.print(f"{name}: {passages} passages")


@app.command("ship-weights")
def run_ship_weights(
    run: Annotated[Path, Argument(help="Output folder of gpurerank train.")],
) -> None:
    """Write a trained model into the package as the embedded cross-encoder."""
    out.print(f"{DELTA_FILE}: SHA-256 {ship(run / 'model', DELTA_FILE)}", soft_wrap=True)


def _options(
    model: list[str] | None,
    rounds: int | None,
    limit_s: float,
    output: Path | None,
    device: str,
    dtype: str,
) -> BenchOptions:
    return BenchOptions(
        models=tuple(model or ()),
        rounds=rounds,
        limit_s=limit_s,
        output=output,
        device=device,
        dtype=dtype,
    )


def _parse_counts(text: str, option: str, maximum: int) -> tuple[int, ...]:
    return tuple(sorted(map(int, parse_numbers(text, option, 1, maximum))))


def _run(options: BenchOptions, measure: Measure) -> None:
    if run_on_models(options, measure, out, err).interrupted:
        raise typer.Exit(130)


if __name__ == "__main__":
    try:
        app(prog_name="python -m benchmarks")
    except GPURerankError as error:
        err.print(f"[red]benchmarks:[/red] {error}", soft_wrap=True)
        sys.exit(1)

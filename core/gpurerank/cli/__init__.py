"""The command line, a module a command; the only reader of the environment."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.markup import escape

from gpurerank import __version__
from gpurerank.cli.bench import bench
from gpurerank.cli.console import err, out
from gpurerank.cli.demo import demo
from gpurerank.cli.doctor import doctor
from gpurerank.cli.eval import evaluate
from gpurerank.cli.rank import rank
from gpurerank.cli.score import score
from gpurerank.cli.serve import serve
from gpurerank.cli.train import train
from gpurerank.errors import GPURerankError

app = typer.Typer(
    help="Rerank passages with a cross-encoder: on the GPU where there is one, without padding.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        out.print(f"gpurerank {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options_of_all_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None: ...


for command in (demo, rank, doctor, bench, train, serve, score):
    app.command()(command)
app.command("eval")(evaluate)


def main() -> None:
    """Runs the command line; every failure is one line on standard error."""
    try:
        app()
    except GPURerankError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader left, as with "| head": nothing more to say, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("GPURERANK_DEBUG"):
            raise
        reason = (str(error).splitlines() or [""])[0]
        _fail(f"{type(error).__name__}: {reason} (GPURERANK_DEBUG=1 shows where)")


def _fail(message: str) -> None:
    err.print(f"[red]gpurerank:[/red] {escape(' '.join(message.split()))}", soft_wrap=True)
    sys.exit(1)

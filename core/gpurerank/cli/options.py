"""Options that several commands share, and the variables that give their defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from gpurerank.errors import InputError

Model = Annotated[
    str, typer.Option(envvar="GPURERANK_MODEL", help="'embedded', a folder or a hub id.")
]
Device = Annotated[
    str, typer.Option(envvar="GPURERANK_DEVICE", help="'auto', 'cpu', 'cuda', 'cuda:1' …")
]
Dtype = Annotated[
    str, typer.Option(envvar="GPURERANK_DTYPE", help="'auto', 'float32', 'bfloat16', 'float16'.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="GPURERANK_BASE_URL",
        help="A server in place of a model here; its key from GPURERANK_API_KEY.",
    ),
]
TopK = Annotated[int, typer.Option("--top-k", "-k", help="Passages shown.", min=1)]


def refuse_given(context: typer.Context, names: Sequence[str], reason: str) -> None:
    """Refuses options of the command line that would have no effect.

    A variable of the environment may hold for other commands too, and is not refused.

    Args:
        context: Of the command.
        names: Of its parameters.
        reason: Why they have no effect and what to change.

    Raises:
        InputError: One was given.
    """
    # Typer has a copy of Click, whose enumeration is not that of the package of this name.
    sources = {name: context.get_parameter_source(name) for name in names}
    given = [
        f"--{name.replace('_', '-')}"
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    ]
    if given:
        raise InputError(f"{' and '.join(given)} would have no effect: {reason}")

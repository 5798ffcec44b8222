"""Options that several commands share, and the variables that give their defaults."""

from __future__ import annotations

from typing import Annotated

import typer

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

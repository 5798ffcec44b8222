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
TopK = Annotated[int, typer.Option("--top-k", "-k", help="Passages shown.", min=1)]

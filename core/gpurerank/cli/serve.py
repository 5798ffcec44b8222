"""``gpurerank serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from gpurerank.cli.console import err
from gpurerank.cli.options import Device, Dtype
from gpurerank.errors import InputError

if TYPE_CHECKING:
    from gpurerank.server.options import ServerOptions


def serve(
    reranker: Annotated[
        list[str] | None,
        typer.Option("--reranker", "-r", help="NAME=MODEL or MODEL; may be repeated."),
    ] = None,
    embedder: Annotated[
        list[str] | None,
        typer.Option("--embedder", "-e", help="The same. Without any: one of each, embedded."),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="With a corpus for the playground.")] = False,
    host: Annotated[str, typer.Option(envvar="GPURERANK_HOST", help="Address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="GPURERANK_PORT", help="0 for any.")] = 8787,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="GPURERANK_API_KEY", help="Better through the variable.", metavar="KEY"
        ),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="Listen beyond this machine without a key.")
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Web site whose pages may send requests, such as https://search.example.com; may"
            " be repeated. * allows every site.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name that the Host header of a request may have, beside those of this machine;"
            " may be repeated. * allows every name.",
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of a pair.", min=8)] = 512,
    cached_scores: Annotated[int, typer.Option(help="Scores remembered in memory.", min=0)] = 0,
    max_passages: Annotated[int, typer.Option(help="Of one request.", min=1)] = 10_000,
    max_body_mb: Annotated[int, typer.Option(help="Of one request's body.", min=1)] = 32,
    queued_s: Annotated[float, typer.Option(help="Waiting work; over it 429.")] = 20.0,
    answer_s: Annotated[float, typer.Option(help="Of a request.")] = 120.0,
    drain_s: Annotated[float, typer.Option(help="For what was accepted, to end.")] = 30.0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    on_ray: Annotated[
        bool, typer.Option("--ray", help="As replicas on Ray Serve; the options below are its own.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="A cluster; without it one of this machine."),
    ] = None,
    replicas: Annotated[int, typer.Option(help="Copies of the models, at least.", min=1)] = 1,
    max_replicas: Annotated[int | None, typer.Option(help="At most, by load.")] = None,
    num_cpus: Annotated[float, typer.Option(help="Cores of a replica.", min=0)] = 0.5,
    num_gpus: Annotated[
        float | None, typer.Option(help="GPUs of a replica, such as 0.5.", show_default="1 or 0")
    ] = None,
) -> None:
    """Serve rerankers and embedders over HTTP, for clients that are there already."""
    try:
        from gpurerank.server.options import Limits, Named, ServerOptions
        from gpurerank.server.run import serve as run
    except ImportError as error:
        raise InputError(
            f"the server needs the package {error.name}: pip install 'gpurerank[serve]'"
        ) from error
    both = not reranker and not embedder
    limits = Limits(
        passages=max_passages,
        body_bytes=max_body_mb << 20,
        queued_s=queued_s,
        answer_s=answer_s,
        drain_s=drain_s,
    )
    options = ServerOptions(
        rerankers=tuple(map(Named.parse, reranker or (["embedded"] if both else []))),
        embedders=tuple(map(Named.parse, embedder or (["embedded"] if both else []))),
        host=host,
        port=port,
        api_key=api_key,
        open_to_all=open_to_all,
        allowed_origins=tuple(allow_origin or ()),
        allowed_hosts=tuple(allow_host or ()),
        device=device,
        dtype=dtype,
        max_length=max_length,
        cached_scores=cached_scores,
        demo=demo,
        limits=limits,
    )
    err.print("loading the models")
    if on_ray:
        _on_ray(options, ray_address, replicas, max_replicas, num_cpus, num_gpus)
    else:
        run(options, _listening)


def _on_ray(
    server: ServerOptions,
    address: str | None,
    replicas: int,
    max_replicas: int | None,
    num_cpus: float,
    num_gpus: float | None,
) -> None:
    try:
        from gpurerank.cluster.connection import Replicas
        from gpurerank.cluster.options import ApplicationOptions
        from gpurerank.cluster.run import run
    except ImportError as error:
        raise InputError("--ray needs Ray: pip install 'gpurerank[ray]'") from error
    each = Replicas(count=replicas, num_cpus=num_cpus, num_gpus=num_gpus)
    options = ApplicationOptions(server=server, replicas=each, max_replicas=max_replicas)
    run(options, address, _listening)


def _listening(url: str) -> None:
    err.print(f"listening on {escape(url)}", soft_wrap=True)

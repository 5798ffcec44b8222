"""``gpurerank serve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from gpurerank.cli.console import err
from gpurerank.cli.options import Device, Dtype, refuse_given
from gpurerank.errors import InputError

if TYPE_CHECKING:
    from gpurerank.server.options import ServerOptions


# What has an effect on Ray alone, and what on a plain server alone.
_RAY_OPTIONS = ("ray_address", "replicas", "max_replicas", "num_cpus", "num_gpus")
_PLAIN_OPTIONS = ("max_connections", "address_file")


def serve(
    context: typer.Context,
    reranker: Annotated[
        list[str] | None,
        typer.Option("--reranker", "-r", help="Reranker, as NAME=MODEL or MODEL; repeatable."),
    ] = None,
    embedder: Annotated[
        list[str] | None,
        typer.Option(
            "--embedder",
            "-e",
            help="Embedder, as NAME=MODEL or MODEL; repeatable. Without any reranker or embedder"
            " the embedded ones are served.",
        ),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Offer a corpus to the playground.")] = False,
    host: Annotated[
        str, typer.Option(envvar="GPURERANK_HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="GPURERANK_PORT", help="Port to listen on; 0 for a free one.")
    ] = 8787,
    address_file: Annotated[
        Path | None,
        typer.Option(
            envvar="GPURERANK_ADDRESS_FILE",
            help="File to write the server's URL to once it listens, for health checks.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="GPURERANK_API_KEY",
            help="Key that requests must have; set the variable, since other users of the machine"
            " can read command lines.",
            metavar="KEY",
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
            help="Name that the Host header may have, in addition to those of this machine; may be"
            " repeated. * allows every name.",
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(help="Maximum tokens per pair.", min=8)] = 512,
    cached_scores: Annotated[
        int, typer.Option(help="Scores to keep in memory for pairs that come again.", min=0)
    ] = 0,
    max_passages: Annotated[
        int, typer.Option(help="Maximum passages per request.", min=1)
    ] = 10_000,
    max_body_mb: Annotated[
        int, typer.Option(help="Maximum size of a request body in MiB.", min=1)
    ] = 32,
    max_connections: Annotated[
        int | None,
        typer.Option(
            help="Maximum open connections; further ones wait until an idle one was closed.",
            min=1,
            show_default="open files limit - 128, at most 10000",
        ),
    ] = None,
    queued_s: Annotated[
        float, typer.Option(help="Seconds of work that may wait; more is refused with 429.")
    ] = 20.0,
    answer_s: Annotated[float, typer.Option(help="Maximum seconds to answer a request.")] = 120.0,
    drain_s: Annotated[
        float,
        typer.Option(help="Maximum seconds from SIGTERM to the end, answering what was accepted."),
    ] = 30.0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Serve on Ray; the options below are for it alone.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="Address of the Ray cluster; without it a cluster of this machine is started.",
        ),
    ] = None,
    replicas: Annotated[
        int, typer.Option(help="Minimum replicas, each with a copy of the models.", min=1)
    ] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(help="Maximum replicas, started by load.", min=1)
    ] = None,
    num_cpus: Annotated[float, typer.Option(help="CPU cores per replica.", min=0)] = 0.5,
    num_gpus: Annotated[
        float | None,
        typer.Option(help="GPUs per replica, such as 0.5.", min=0, show_default="1 or 0"),
    ] = None,
) -> None:
    """Serve rerankers and embedders over HTTP, for clients that are there already."""
    try:
        from gpurerank.server.options import Limits, Named, ServerOptions
    except ImportError as error:
        raise _missing_package(error) from error
    if on_ray:
        refuse_given(context, _PLAIN_OPTIONS, "Ray's proxies listen; leave out --ray or them")
    else:
        refuse_given(context, _RAY_OPTIONS, "they are for a Ray cluster; add --ray")
    if embedder and not reranker:
        refuse_given(context, ("cached_scores", "max_length"), "no reranker is served; name one")
    both = not reranker and not embedder
    limits = Limits(
        passages=max_passages,
        body_bytes=max_body_mb << 20,
        queued_s=queued_s,
        answer_s=answer_s,
        drain_s=drain_s,
        max_connections=max_connections,
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
        address_file=address_file,
        limits=limits,
    )
    if on_ray:
        _serve_on_ray(options, ray_address, replicas, max_replicas, num_cpus, num_gpus)
    else:
        _serve_here(options)


def _serve_here(options: ServerOptions) -> None:
    try:
        from gpurerank.server.run import serve as run
    except ImportError as error:
        raise _missing_package(error) from error
    run(options, _report)


def _serve_on_ray(
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
    run(options, address, _report)


def _missing_package(error: ImportError) -> InputError:
    return InputError(f"the server needs the package {error.name}: pip install 'gpurerank[serve]'")


def _report(line: str) -> None:
    err.print(escape(line), soft_wrap=True, highlight=False)

"""The arguments of the application as a config file or ``serve run`` gives them: flat, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from gpurerank.cluster.connection import Replicas
from gpurerank.cluster.options import ApplicationOptions
from gpurerank.errors import InputError
from gpurerank.server.options import Limits, Named, ServerOptions


def _listed(value: Any) -> Any:
    # "serve run" knows text alone.
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_listed)]


class Arguments(BaseModel):
    """What may stand under ``args``; a number may be text. What is left out is as elsewhere.

    Attributes:
        rerankers: ``NAME=MODEL`` or ``MODEL`` each, as a list or with commas between.
        embedders: Likewise.
        replicas: At first and at least.
        max_replicas: At most; without it their number stays.
        num_cpus: Cores of a replica.
        num_gpus: GPUs of a replica, also a part of one. Without it 1 where the cluster has a GPU
            when the application is built, otherwise 0.
        target_ongoing_requests: Requests of a replica beyond which there should be another.
        max_ongoing_requests: Requests that a replica holds.
        max_queued_requests: Requests that wait in a proxy; more get 429.
        api_key_file: A file with the key, such as a mounted secret. Never the key itself: Serve
            shows arguments to whoever sees its dashboard, its logs or the process list.
        open_to_all: Serve beyond this machine without a key.
        allowed_origins: Web sites whose pages may send requests, as a list or with commas between.
        allowed_hosts: Names that the Host header of a request may have, likewise.
        device: As for ``gpurerank serve``, like those that follow.
        dtype: Of the models' arithmetic.
        max_length: Tokens of a pair.
        cached_scores: Scores that each replica remembers.
        max_passages: Of one request.
        max_body_mb: Of one request's body.
        queued_s: Work that may wait in a replica; more gets 429.
        answer_s: What a request may take.
        drain_s: What accepted work gets when a replica ends. Longer than a request may take: an
            idle replica ends at once, so this costs nothing and loses nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rerankers: Names | None = None
    embedders: Names | None = None
    replicas: int | None = None
    max_replicas: int | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    target_ongoing_requests: float | None = None
    max_ongoing_requests: int | None = None
    max_queued_requests: int | None = None
    api_key_file: Path | None = None
    open_to_all: bool | None = None
    allowed_origins: Names | None = None
    allowed_hosts: Names | None = None
    device: str | None = None
    dtype: str | None = None
    max_length: int | None = None
    cached_scores: int | None = None
    max_passages: int | None = None
    max_body_mb: int | None = None
    queued_s: float | None = None
    answer_s: float | None = None
    drain_s: float = 180.0

    def options(self) -> ApplicationOptions:
        """The options that these ask for.

        Raises:
            InputError: A model has no name, or the key's file cannot be read.
        """
        replicas = self._said(("num_cpus", "num_gpus"))
        if self.replicas is not None:
            replicas["count"] = self.replicas
        names = (
            "max_replicas",
            "target_ongoing_requests",
            "max_ongoing_requests",
            "max_queued_requests",
        )
        return ApplicationOptions(
            server=self._server(), replicas=Replicas(**replicas), **self._said(names)
        )

    def _server(self) -> ServerOptions:
        default = [] if self.rerankers or self.embedders else ["embedded"]
        return ServerOptions(
            rerankers=tuple(map(Named.parse, self.rerankers or default)),
            embedders=tuple(map(Named.parse, self.embedders or default)),
            api_key=None if self.api_key_file is None else _key(self.api_key_file),
            allowed_origins=tuple(self.allowed_origins or ()),
            allowed_hosts=tuple(self.allowed_hosts or ()),
            limits=self._limits(),
            **self._said(("open_to_all", "device", "dtype", "max_length", "cached_scores")),
        )

    def _limits(self) -> Limits:
        limits = self._said(("queued_s", "answer_s", "drain_s"))
        if self.max_passages is not None:
            limits["passages"] = self.max_passages
        if self.max_body_mb is not None:
            limits["body_bytes"] = self.max_body_mb << 20
        return Limits(**limits)

    def _said(self, names: Iterable[str]) -> dict[str, Any]:
        """Those that were given: what was not has its default where it is used, and there alone."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def options_of(arguments: Mapping[str, Any]) -> ApplicationOptions:
    """The options that arguments by name ask for.

    Raises:
        InputError: An argument is unknown or wrong.
    """
    unknown = next((name for name in arguments if name not in Arguments.model_fields), None)
    if unknown is not None:
        known = ", ".join(Arguments.model_fields)
        raise InputError(f"there is no argument {unknown!r}; there are {known}")
    try:
        asked = Arguments.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{where} is {first['input']!r}: {first['msg']}") from None
    return asked.options()


def _key(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"api_key_file {path} cannot be read: {type(error).__name__}") from error

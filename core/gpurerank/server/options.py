"""What a server is asked to be, and what it takes from outside."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path

from gpurerank.errors import InputError
from gpurerank.server.origins import is_loopback, normalize_host, normalize_origin

# File descriptors that are no connections: model files, threads, a GPU's device files.
_RESERVED_FILES = 128
# Each may hold headers, a body and an answer; without a limit of files memory would be the next.
_MOST_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may ask, and how long it may take.

    Attributes:
        body_bytes: Of a request's body.
        header_bytes: Of a request's line and headers.
        passages: Of one request; texts to embed count as passages.
        passage_chars: Of one passage or text.
        query_chars: Of a query.
        queued_s: Work that may wait, in seconds of the measured rate; what would wait longer is
            refused with 429.
        header_s: Until the headers of a request have arrived.
        body_s: Until its body has arrived.
        answer_s: Until a request is answered.
        drain_s: Seconds from SIGTERM to the end of the process, at most; accepted requests are
            answered until shortly before.
        max_connections: Open connections, including those kept alive without a request. None
            derives it from the limit of open files.
    """

    body_bytes: int = 32 << 20
    header_bytes: int = 32 << 10
    passages: int = 10_000
    passage_chars: int = 1_000_000
    query_chars: int = 50_000
    queued_s: float = 20.0
    header_s: float = 10.0
    body_s: float = 30.0
    answer_s: float = 120.0
    drain_s: float = 30.0
    max_connections: int | None = None

    def check(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: One is not over 0, or there may be more connections than open files.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be over 0")
        self.connections()

    def connections(self) -> int:
        """The limit of open connections, which leaves file descriptors for models and files.

        Raises:
            InputError: ``max_connections`` is more than the limit of open files allows.
        """
        files = _open_files_limit()
        most = max(1, files - _RESERVED_FILES, files // 2)
        if self.max_connections is None:
            return min(most, _MOST_CONNECTIONS)
        if self.max_connections > most:
            raise InputError(
                f"max_connections is {self.max_connections}, over the {most} that the limit of"
                f" {files} open files leaves room for; raise that limit (ulimit -n) or lower"
                " max_connections"
            )
        return self.max_connections


def _open_files_limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


@dataclass(frozen=True, slots=True)
class Named:
    """A model and the name that requests call it by."""

    name: str
    model: str

    @classmethod
    def parse(cls, text: str) -> Named:
        """Reads ``NAME=MODEL`` or ``MODEL``.

        Raises:
            InputError: The name or the model is empty.
        """
        name, _, model = text.rpartition("=")
        named = cls(name or model, model)
        if not named.name.strip() or not named.model.strip():
            raise InputError(f"{text!r} names no model; give NAME=MODEL or MODEL")
        return named


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Everything a server is told.

    Attributes:
        rerankers: Cross-encoders; the first is the default.
        embedders: Bi-encoders; the first is the default.
        host: Address that is listened on.
        port: Its port; 0 for any that is free.
        api_key: What requests must show; None asks for none.
        open_to_all: Listen beyond this machine without a key.
        allowed_origins: Web sites whose pages may send requests, such as
            "https://search.example.com"; "*" for every site.
        allowed_hosts: Names that the Host header may have. On loopback its own names are allowed in
            any case, and no others; beyond it every name is, unless some are given here.
        device: As in ``Reranker``.
        dtype: As in ``Reranker``.
        max_length: Tokens of a pair.
        cached_scores: Scores remembered in memory; 0 for none.
        demo: Whether the playground has the demo corpus at hand.
        address_file: File that gets the server's URL once it listens; None writes none.
        limits: What comes from outside is held to.
    """

    rerankers: tuple[Named, ...] = (Named("embedded", "embedded"),)
    embedders: tuple[Named, ...] = (Named("embedded", "embedded"),)
    host: str = "127.0.0.1"
    port: int = 8787
    api_key: str | None = None
    open_to_all: bool = False
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    max_length: int = 512
    cached_scores: int = 0
    demo: bool = False
    address_file: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Checks what can be checked without the models.

        Raises:
            InputError: An option is wrong, or would let anybody in.
        """
        self.limits.check()
        if not self.rerankers and not self.embedders:
            raise InputError("nothing to serve: name a reranker or an embedder")
        for kind in (self.rerankers, self.embedders):
            names = [each.name for each in kind]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise InputError(f"two models are called {twice!r}; give NAME=MODEL")
        if not 0 <= self.port <= 65_535:
            raise InputError(f"port is {self.port}; it must be from 0 to 65535")
        for origin in self.allowed_origins:
            normalize_origin(origin)
        for host in self.allowed_hosts:
            normalize_host(host)
        if self.api_key is not None:
            _check_key(self.api_key)
        if self.api_key is None and not self.open_to_all and not is_loopback(self.host):
            raise InputError(
                f"listening on {self.host} lets everybody in who reaches it; set an API key, or"
                " say --open-to-all"
            )


def _check_key(api_key: str) -> None:
    if len(api_key) < 8:
        raise InputError("the API key is shorter than 8 characters; take a longer one")
    if not all("!" <= character <= "~" for character in api_key):
        raise InputError(
            "the API key has a blank or a character beyond ASCII in it; headers take neither"
        )

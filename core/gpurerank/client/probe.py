"""Which kind of server answers at an address: asked once for each address and process.

Hosted services are known by their host name and are not asked. Else ``GET /info`` tells this
package's own server and text-embeddings-inference, and, where there is none, ``GET /v1/models``
and ``GET /models`` tell vLLM, Infinity and other servers of OpenAI's shape by ``owned_by``: one to
three requests without a text in them. The finding is kept until the server says 404 or 405 to it;
a failure is not kept. Everything runs on one event loop, so callers on any thread share one asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gpurerank.client.address import Address
from gpurerank.client.exchange import Exchange, Request
from gpurerank.errors import RemoteError

# Statuses of a path that does not exist, or not for GET, or not without a body.
_ABSENT = {400, 404, 405, 422, 501}

_HOSTS = {
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.jina.ai": "jina",
    "api.voyageai.com": "voyage",
    "api.openai.com": "openai",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is known of a server.

    Attributes:
        kind: A name in ``apis.py``, or "openai" for one that has a list of models and is no other.
        address: Where its paths begin.
        model: What it serves, where it says so and serves one model.
        most: Texts of one request, where it says so.
        gives_logits: Whether it surely gives logits when they are asked for.
    """

    kind: str
    address: Address
    model: str | None = None
    most: int | None = None
    gives_logits: bool = False


class _Findings:
    """What was found, by address; one asking at a time for each."""

    def __init__(self) -> None:
        self.servers: dict[Address, Server] = {}
        self._asking: dict[tuple[asyncio.AbstractEventLoop, Address], asyncio.Lock] = {}

    def turn(self, address: Address) -> asyncio.Lock:
        # A lock belongs to its loop; a forked process has another one.
        key = (asyncio.get_running_loop(), address)
        return self._asking.setdefault(key, asyncio.Lock())


_FINDINGS = _Findings()


async def find_server(address: Address, exchange: Exchange) -> Server:
    """The server at an address.

    Raises:
        RemoteError: It cannot be reached, refuses the key, or does not say what it is.
    """
    kind = _HOSTS.get(urlsplit(address.root).hostname or "")
    if kind is not None:
        return Server(kind=kind, address=address)
    async with _FINDINGS.turn(address):
        found = _FINDINGS.servers.get(address)
        if found is None:
            found = _FINDINGS.servers[address] = await _asked(address, exchange)
        return found


def forget_server(address: Address) -> None:
    """Has an address asked anew: another server may stand there by now."""
    _FINDINGS.servers.pop(address, None)


async def _asked(address: Address, exchange: Exchange) -> Server:
    info = await _json(exchange, address.url("/info"))
    if isinstance(info.get("model_id"), str):
        most = info.get("max_client_batch_size")
        own = info.get("server") == "gpurerank"
        return Server(
            kind="gpurerank" if own else "tei",
            address=address,
            model=info["model_id"],
            most=most if isinstance(most, int) and most > 0 else None,
            gives_logits=not own,
        )
    for version in ("/v1", ""):
        place = Address(address.root, version)
        models = (await _json(exchange, place.url("models"))).get("data")
        if isinstance(models, list) and models and isinstance(models[0], Mapping):
            return _listed(place, models)
    raise RemoteError(
        f"{address.root} does not say what kind of server it is (GET /info, /v1/models, /models);"
        " name the shape that it speaks, such as RemoteScorer(base_url, api='cohere')"
    )


def _listed(address: Address, models: list[Any]) -> Server:
    owner = models[0].get("owned_by")
    name = models[0].get("id")
    return Server(
        kind=owner if owner in ("gpurerank", "infinity", "vllm") else "openai",
        address=address,
        model=name if len(models) == 1 and isinstance(name, str) else None,
    )


async def _json(exchange: Exchange, url: str) -> Mapping[str, Any]:
    """The object at an address; empty where there is none."""
    try:
        answer = await exchange.ask(Request(url))
    except RemoteError as error:
        # A success that is an error is a page of HTML, such as one that stands for every path.
        if error.status in _ABSENT or error.status == 200:
            return {}
        raise
    return answer if isinstance(answer, Mapping) else {}

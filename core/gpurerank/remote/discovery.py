"""Finds out which provider a server speaks, once for each address and process.

The providers' own services are known by host name and get no extra request. Otherwise ``/info``
identifies this package's own server and text-embeddings-inference, and where there is none,
``/v1/models`` and ``/models`` identify vLLM, Infinity and other servers of OpenAI's shape by
``owned_by``: one to three GET requests that contain no text. The result is kept until the server
answers 404 or 405; a failure is not kept. Everything runs on one event loop, so callers on any
thread share one discovery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gpurerank.errors import RemoteError
from gpurerank.remote.address import Address
from gpurerank.remote.http_client import HttpClient, HttpRequest
from gpurerank.remote.providers import PROVIDERS

# Statuses of a path that does not exist, or not for GET, or not without a body.
_ABSENT_STATUSES = {400, 404, 405, 422, 501}

_PROVIDER_BY_HOST = {host: provider for provider in PROVIDERS.values() for host in provider.hosts}
_PROVIDER_BY_OWNER = {
    provider.owned_by: provider for provider in PROVIDERS.values() if provider.owned_by
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is known of a server.

    Attributes:
        provider: Name of its provider; "openai" for one that lists models and is no other.
        address: Where its paths start.
        model: The model that it serves, where it says so and serves only one.
        max_texts: Most texts in one request, where it says so.
        returns_logits: Whether it returns logits when they are requested.
    """

    provider: str
    address: Address
    model: str | None = None
    max_texts: int | None = None
    returns_logits: bool = False


class _DiscoveredServers:
    """The servers discovered so far, by address; one discovery at a time for each."""

    def __init__(self) -> None:
        self.by_address: dict[Address, Server] = {}
        self._locks: dict[tuple[asyncio.AbstractEventLoop, Address], asyncio.Lock] = {}

    def lock(self, address: Address) -> asyncio.Lock:
        # A lock belongs to its loop; a forked process has another loop.
        key = (asyncio.get_running_loop(), address)
        return self._locks.setdefault(key, asyncio.Lock())


_SERVERS = _DiscoveredServers()


async def find_server(address: Address, client: HttpClient) -> Server:
    """The server at an address.

    Raises:
        RemoteError: It cannot be reached, rejects the key, or does not say what it is.
    """
    provider = _PROVIDER_BY_HOST.get(urlsplit(address.root).hostname or "")
    if provider is not None:
        return Server(provider=provider.name, address=address)
    async with _SERVERS.lock(address):
        server = _SERVERS.by_address.get(address)
        if server is None:
            server = _SERVERS.by_address[address] = await _discover(address, client)
        return server


def forget_server(address: Address) -> None:
    """Forgets the server of an address, since another one may run there by now."""
    _SERVERS.by_address.pop(address, None)


async def _discover(address: Address, client: HttpClient) -> Server:
    info = await _get_object(client, address.url("/info"))
    if isinstance(info.get("model_id"), str):
        max_texts = info.get("max_client_batch_size")
        is_gpurerank = info.get("server") == "gpurerank"
        return Server(
            provider="gpurerank" if is_gpurerank else "tei",
            address=address,
            model=info["model_id"],
            max_texts=max_texts if isinstance(max_texts, int) and max_texts > 0 else None,
            returns_logits=not is_gpurerank,
        )
    for version in ("/v1", ""):
        versioned = Address(address.root, version)
        models = (await _get_object(client, versioned.url("models"))).get("data")
        if isinstance(models, list) and models and isinstance(models[0], Mapping):
            return _server_of_models(versioned, models)
    raise RemoteError(
        f"{address.root} does not say which API it speaks (GET /info, /v1/models, /models); name"
        " it, for example RemoteScorer(base_url, api='cohere')"
    )


def _server_of_models(address: Address, models: list[Any]) -> Server:
    owner, name = models[0].get("owned_by"), models[0].get("id")
    provider = _PROVIDER_BY_OWNER.get(owner) if isinstance(owner, str) else None
    return Server(
        provider="openai" if provider is None else provider.name,
        address=address,
        model=name if len(models) == 1 and isinstance(name, str) else None,
    )


async def _get_object(client: HttpClient, url: str) -> Mapping[str, Any]:
    """The JSON object at an address; empty if there is none."""
    try:
        response = await client.send(HttpRequest(url))
    except RemoteError as error:
        # A success that is no JSON is a page of HTML, as some servers send for every path.
        if error.status in _ABSENT_STATUSES or error.status == 200:
            return {}
        raise
    return response if isinstance(response, Mapping) else {}

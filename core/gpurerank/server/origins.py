"""Names of hosts and origins as browsers send them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from gpurerank.errors import InputError

ANY = "*"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str:
    """The name or address of a Host header, without port, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    name = header.partition(":")[0] if header.count(":") == 1 else header
    return name.lower().rstrip(".")


def normalize_host(host: str) -> str:
    """A host name that is to be allowed, as ``host_of`` gives it.

    Raises:
        InputError: It is empty, or a URL.
    """
    name = host_of(host.strip())
    if not name or "/" in host:
        raise InputError(f"the allowed host is {host!r}; give a name, such as search.example.com")
    return name


def normalize_origin(origin: str) -> str:
    """An origin as browsers send it.

    Raises:
        InputError: It is not ``SCHEME://HOST[:PORT]``, "null" or "*".
    """
    if origin in (ANY, "null"):
        return origin
    parts = urlsplit(origin.rstrip("/"))
    if not parts.scheme or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise InputError(
            f"the allowed origin is {origin!r}; give SCHEME://HOST[:PORT], such as"
            " https://search.example.com, or * for every site"
        )
    return f"{parts.scheme}://{parts.netloc}".lower()

"""The address and the key of a server."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from gpurerank.errors import InputError
from gpurerank.types import Secret

_VERSIONS = ("/v1", "/v2")
_ENDPOINTS = ("/rerank", "/score", "/embed", "/embeddings")


@dataclass(frozen=True, slots=True)
class Address:
    """A server's base URL.

    Attributes:
        root: Scheme, host, port and path, without a version and without a slash at the end.
        version: "/v1" or "/v2" where the base URL ended so, else "".
    """

    root: str
    version: str

    @classmethod
    def of(cls, base_url: str) -> Address:
        """The address of a base URL; "/v1" or "/v2" at its end makes no other server.

        Raises:
            InputError: It is no HTTP address, or contains a user, a query or an endpoint.
        """
        url = _check_url(base_url)
        for version in _VERSIONS:
            if url.endswith(version):
                return cls(url.removesuffix(version), version)
        return cls(url, "")

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.root).netloc

    def url(self, path: str) -> str:
        """The address of a path: below the root, or without a slash below the base URL as given."""
        return self.root + path if path.startswith("/") else f"{self.root}{self.version}/{path}"


def plain_key(api_key: str | Secret | None) -> str | None:
    """The key as a string, without surrounding whitespace.

    Raises:
        InputError: It is blank, or has a character that a header cannot hold; the message does not
            show the key.
    """
    if api_key is None:
        return None
    key = api_key.get_secret_value() if isinstance(api_key, Secret) else api_key
    if not isinstance(key, str):
        raise InputError(f"api_key is {type(key).__name__}, not a string")
    key = key.strip()
    if not key:
        raise InputError("api_key is blank; leave it out if the server needs none")
    if key.lower().startswith("bearer "):
        raise InputError("api_key starts with 'Bearer '; give only the key")
    if not all("!" <= character <= "~" for character in key):
        raise InputError("api_key contains whitespace or a non-ASCII character; copy it again")
    return key


def check_local_options(**options: tuple[object, object]) -> None:
    """Checks that options of a local model are not combined with ``base_url``.

    Args:
        **options: By name, the value and its default.

    Raises:
        InputError: An option differs from its default.
    """
    for name, (value, default) in options.items():
        if value != default:
            raise InputError(
                f"{name} is {value!r}, but with base_url the server decides about its model: leave"
                " it out, and set it where the server is started"
            )


def _check_url(base_url: str) -> str:
    if not isinstance(base_url, str):
        raise InputError(f"base_url is {type(base_url).__name__}, not a string")
    url = base_url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_valid = is_valid and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        is_valid = False
    if not is_valid:
        # The value is not shown, since it may contain a password.
        raise InputError("base_url is not an address such as 'http://gpu-server:8000'")
    if parts.username is not None or parts.password is not None:
        raise InputError("base_url contains a user or a password; pass the key as api_key")
    if parts.query or parts.fragment:
        raise InputError("base_url contains a '?' or a '#'; give only the part before it")
    for endpoint in _ENDPOINTS:
        if parts.path.endswith(endpoint):
            raise InputError(
                f"base_url ends in {endpoint!r}; give the server's address without it, and name"
                " the provider with api= if necessary"
            )
    return url

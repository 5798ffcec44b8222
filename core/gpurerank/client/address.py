"""Where a server is and how it is told who asks."""

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
        """The address of a base URL; with "/v1" at its end it is the same server.

        Raises:
            InputError: It is no HTTP address, or holds what belongs elsewhere.
        """
        url = _checked(base_url)
        for version in _VERSIONS:
            if url.endswith(version):
                return cls(url.removesuffix(version), version)
        return cls(url, "")

    @property
    def host(self) -> str:
        """Host and port, as names go in messages."""
        return urlsplit(self.root).netloc

    def url(self, path: str) -> str:
        """The address of a path: from the root, or, without a slash, from what was given."""
        return self.root + path if path.startswith("/") else f"{self.root}{self.version}/{path}"


def plain_key(api_key: str | Secret | None) -> str | None:
    """The key as a text, without the blanks that a file leaves at its end.

    Raises:
        InputError: It is blank, or has a character that no header takes; the key is not shown.
    """
    if api_key is None:
        return None
    key = api_key.get_secret_value() if isinstance(api_key, Secret) else api_key
    if not isinstance(key, str):
        raise InputError(f"api_key is {type(key).__name__}, not a string")
    key = key.strip()
    if not key:
        raise InputError("api_key is blank; leave it out where the server wants none")
    if key.lower().startswith("bearer "):
        raise InputError("api_key begins with 'Bearer '; give the key alone")
    if not all("!" <= character <= "~" for character in key):
        raise InputError("api_key has a blank or a character beyond ASCII inside; copy it again")
    return key


def check_local_options(**options: tuple[object, object]) -> None:
    """Checks that nothing is asked of a server that only a model in this process can do.

    Args:
        **options: By name, what was given and what stands for nothing.

    Raises:
        InputError: One was given.
    """
    for name, (given, default) in options.items():
        if given != default:
            raise InputError(
                f"{name} is {given!r}, an option of a model in this process; with base_url the"
                " server decides: leave it out, and set it where the server is started"
            )


def _checked(base_url: str) -> str:
    if not isinstance(base_url, str):
        raise InputError(f"base_url is {type(base_url).__name__}, not a string")
    url = base_url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        # Not shown: whatever it is, it may hold a password.
        raise InputError("base_url is no address such as 'http://gpu-server:8000'")
    if parts.username is not None or parts.password is not None:
        raise InputError("base_url holds a user or a password; give the key as api_key")
    if parts.query or parts.fragment:
        raise InputError("base_url has a '?' or a '#'; give the address that stands before")
    for endpoint in _ENDPOINTS:
        if parts.path.endswith(endpoint):
            raise InputError(
                f"base_url ends in {endpoint!r}; give the server's address without it, and name"
                " the way it is spoken to with api=, if need be"
            )
    return url

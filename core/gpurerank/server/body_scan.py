"""Bounds on a JSON body, checked on its bytes while it arrives, before any object is built.

A body of a few megabytes can hold millions of values, each of which takes 50 to 300 bytes of memory
and a few microseconds once it is parsed. The scan counts what the parser would build, at about a
millisecond per megabyte of text.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpurerank.server.refusal import Refusal

_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_OPENING = b"[{"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one JSON body may hold.

    Attributes:
        values: Values and names of object members.
        containers: Arrays and objects.
        depth: Arrays and objects inside each other.
        string_bytes: Bytes of one string as it is written, escapes included.
    """

    values: int = 500_000
    containers: int = 100_000
    depth: int = 32
    string_bytes: int = 12_000_000


class BodyScan:
    """Counts the values of a body, chunk by chunk.

    The count is exact up to the first syntax error, and the parser builds nothing after that.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._values = 0
        self._quotes = 0
        self._containers = 0
        self._depth = 0
        self._inside_string = False
        self._string_bytes = 0
        self._pending_escape = b""

    def feed(self, chunk: bytes) -> None:
        """Scans the next chunk.

        Raises:
            Refusal: The body is over a bound.
        """
        # Escaped backslashes first: in what is left, a backslash before a quote escapes it.
        text = (self._pending_escape + chunk).replace(b"\\\\", b"--").replace(b'\\"', b"--")
        self._pending_escape = b""
        if text.endswith(b"\\"):
            text, self._pending_escape = text[:-1], b"\\"
        parts = text.split(b'"')
        structure = b"".join(parts[self._inside_string :: 2])
        self._measure_strings(parts)
        self._count(structure)

    def _measure_strings(self, parts: list[bytes]) -> None:
        """Follows the string that crosses chunks; those inside one chunk are short enough."""
        self._quotes += len(parts) - 1
        continues = self._inside_string and len(parts) == 1
        self._inside_string ^= len(parts) % 2 == 0
        if continues:
            self._string_bytes += len(parts[0])
        else:
            self._string_bytes = len(parts[-1]) if self._inside_string else 0
        if self._string_bytes > self._bounds.string_bytes:
            raise Refusal(
                413,
                f"a string of the body has over {self._bounds.string_bytes:,} bytes; send shorter"
                " texts",
                "too_large",
            )

    def _count(self, structure: bytes) -> None:
        bounds = self._bounds
        opened = structure.count(b"[") + structure.count(b"{")
        self._containers += opened
        self._values += opened + structure.count(b",") + structure.count(b":")
        if max(self._values, self._quotes // 2) > bounds.values:
            raise _too_many("values and names", bounds.values)
        if self._containers > bounds.containers:
            raise _too_many("arrays and objects", bounds.containers)
        if self._depth + opened > bounds.depth:
            self._follow_depth(structure)
        else:
            self._depth += opened - structure.count(b"]") - structure.count(b"}")

    def _follow_depth(self, structure: bytes) -> None:
        depth = self._depth
        for bracket in structure.translate(None, _NOT_BRACKETS):
            depth += 1 if bracket in _OPENING else -1
            if depth > self._bounds.depth:
                raise Refusal(
                    422,
                    f"the body is nested too deeply: over {self._bounds.depth} arrays and objects"
                    " inside each other",
                    "not_json",
                    closes_connection=True,
                )
        self._depth = depth


def _too_many(what: str, limit: int) -> Refusal:
    return Refusal(
        413,
        f"the body has over {limit:,} {what}; send fewer passages, or leave out fields that are"
        " not read",
        "too_large",
    )

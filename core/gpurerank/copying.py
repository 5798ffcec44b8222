"""Deep copies of plain data that share only what cannot be copied."""

from __future__ import annotations

import copy
from typing import Any

_IMMUTABLE = frozenset({type(None), bool, bytes, complex, float, int, str})


def deep_copy(value: Any) -> Any:
    """Copies a value and every mutable object inside it.

    Unlike ``copy.deepcopy`` it does not fail on an object that cannot be copied, such as a lock or
    an open connection: that object alone is shared with the original. Lists of numbers, such as
    embeddings, are copied at the speed of ``list``.
    """
    return value if type(value) in _IMMUTABLE else _copied(value, {})


def _copied(value: Any, copies: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    # A container that holds itself, or one that two others hold, is copied once.
    if id(value) in copies:
        return copies[id(value)]
    if kind is dict:
        twin: Any = {}
        copies[id(value)] = twin
        for key, inner in value.items():
            twin[key] = inner if type(inner) in _IMMUTABLE else _copied(inner, copies)
        return twin
    if kind is list:
        twin = []
        copies[id(value)] = twin
        twin.extend(
            inner if type(inner) in _IMMUTABLE else _copied(inner, copies) for inner in value
        )
        return twin
    if kind is tuple:
        return tuple(_copied(inner, copies) for inner in value)
    try:
        return copy.deepcopy(value)
    except Exception:
        return value

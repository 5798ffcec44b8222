"""Values from JSON as the dataclasses that they were: every field there, every type right."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from gpurerank.errors import DataError

T = TypeVar("T")


def decode(kind: type[T], value: Any, place: str) -> T:
    """A value as a dataclass of dataclasses, lists, dicts, optionals, numbers and strings.

    Args:
        kind: What it must be.
        value: What ``json.loads`` gave.
        place: Where it stands, for errors.

    Raises:
        DataError: A field is missing, unknown, or of another type.
    """
    return typing.cast(T, _decoded(kind, value, place))


def _decoded(kind: Any, value: Any, place: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (some,) = (option for option in inner if option is not type(None))
        return None if value is None else _decoded(some, value, place)
    if origin is list and isinstance(value, list):
        return [_decoded(inner[0], item, f"{place}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _decoded(inner[1], item, f"{place}.{key}") for key, item in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return _record(kind, value, place)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise DataError(f"{place} is {value!r:.60}; it must be {getattr(kind, '__name__', kind)}")


def _record(kind: Any, value: dict[str, Any], place: str) -> Any:
    names = {each.name for each in fields(kind)}
    # A report of a time when there was less to measure is read too.
    optional = {f.name for f in fields(kind) if f.default is None}
    if not names - optional <= set(value) <= names:
        raise DataError(f"{place} has the fields {sorted(value)}; it must have {sorted(names)}")
    hints = typing.get_type_hints(kind)
    found = {n: _decoded(hints[n], each, f"{place}.{n}") for n, each in value.items()}
    return kind(**found)

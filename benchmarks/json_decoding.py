"""Converts JSON values to the dataclasses that they were, checking every field and type."""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from gpurerank.errors import DataError

T = TypeVar("T")


def decode(kind: type[T], value: Any, path: str) -> T:
    """Converts a value to a dataclass of dataclasses, lists, dicts, optionals and scalars.

    Args:
        kind: The dataclass.
        value: A value from ``json.loads``.
        path: Path of the value, for errors.

    Raises:
        DataError: A field is missing, unknown, or of another type.
    """
    return typing.cast(T, _decode(kind, value, path))


def _decode(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _decode(inner, value, path)
    if origin is list and isinstance(value, list):
        return [_decode(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _decode(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return _decode_record(kind, value, path)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise DataError(f"{path} is {value!r:.60}; it must be {getattr(kind, '__name__', kind)}")


def _decode_record(kind: Any, value: dict[str, Any], path: str) -> Any:
    names = {field.name for field in fields(kind)}
    # Reports of `gpurerank bench` and of earlier releases have fewer measurements.
    required = {
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }
    if not required <= set(value) <= names:
        raise DataError(f"{path} has the fields {sorted(value)}; it must have {sorted(names)}")
    types_by_name = typing.get_type_hints(kind)
    decoded = {n: _decode(types_by_name[n], item, f"{path}.{n}") for n, item in value.items()}
    return kind(**decoded)

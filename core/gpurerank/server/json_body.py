"""Strict JSON in short steps, and the schemas that bodies are checked against."""

from __future__ import annotations

import codecs
import json
import json.scanner
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gpurerank.server.fields import refuse_instruction
from gpurerank.server.refusal import Refusal

Body = TypeVar("Body", bound=BaseModel)
_DECODED_BYTES = 1 << 20
# Digits of a number: Python converts at most 4,300, and its own error talks to programmers.
_MAX_DIGITS = 400
_MAX_ERRORS = 3


class _StepwiseDecoder(json.JSONDecoder):
    """json's decoder with its loops over members and items in Python.

    The decoder in C holds the interpreter's lock for the whole body, 0.6 s for 32 MiB of emoji, and
    nothing else runs meanwhile. This one holds it for one string at most.
    """

    def __init__(self) -> None:
        super().__init__(
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


def parse_object(body: bytearray) -> dict[str, Any]:
    """Parses strict JSON in UTF-8: no byte order mark, no NaN, no name twice in an object.

    Args:
        body: Emptied as soon as it is decoded, to halve the peak of memory.

    Raises:
        Refusal: The body is something else, or no object.
    """
    try:
        values = _DECODER.decode(_decode_utf8(body))
    except UnicodeDecodeError:
        raise Refusal(422, "the body is not UTF-8", "not_json") from None
    except RecursionError:
        raise Refusal(422, "the body is nested too deeply", "not_json") from None
    except ValueError as error:
        # JSONDecodeError's own text would quote nothing of the body, but name a position.
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise Refusal(422, f"the body is not strict JSON: {reason}", "not_json") from None
    if not isinstance(values, dict):
        message = f"the body is a JSON {type(values).__name__}; send an object"
        raise Refusal(422, message, "not_json")
    return values


def validate(schema: type[Body], values: dict[str, Any], max_items: int) -> Body:
    """Checks an object against a schema; the first few errors are reported.

    Args:
        schema: Its lists stop at their first error (``Field(fail_fast=True)``).
        values: The parsed body.
        max_items: Items that a list of the schema may have; counted before any item is checked.

    Raises:
        Refusal: A list is too long, a field is missing, of another type, or out of range, or the
            body has an instruction that its schema has no place for.
    """
    # Unknown fields are ignored, but an instruction that is dropped would change the scores.
    instruction = values.get("instruction")
    if isinstance(instruction, str) and "instruction" not in schema.model_fields:
        refuse_instruction(instruction)
    for name, value in values.items():
        if isinstance(value, list) and len(value) > max_items and name in schema.model_fields:
            raise too_many_items(name, len(value), max_items)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        lines = dict.fromkeys(f"{_path(one['loc'])}: {_reason(one['msg'])}" for one in details)
        raise Refusal(422, "; ".join(list(lines)[:_MAX_ERRORS]), "invalid") from None


def too_many_items(field: str, count: int, limit: int) -> Refusal:
    """The refusal of a list that is too long."""
    return Refusal(
        413, f"{field}: {count:,} are over the limit of {limit:,}; send them in parts", "too_large"
    )


def _decode_utf8(body: bytearray) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(body)
    parts = [
        decoder.decode(view[start : start + _DECODED_BYTES])
        for start in range(0, len(body), _DECODED_BYTES)
    ]
    parts.append(decoder.decode(b"", final=True))
    view.release()
    body.clear()
    return "".join(parts)


def _path(location: tuple[int | str, ...]) -> str:
    # Where a field may be one of several types pydantic puts the type's name into the path.
    parts = [str(p) for p in location if isinstance(p, int) or (p.isidentifier() and p.islower())]
    return ".".join(parts) or "the body"


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").split(" or instance of ")[0]


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return members


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _bounded_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number has too many digits")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value


_DECODER = _StepwiseDecoder()
